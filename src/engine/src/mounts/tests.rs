use std::os::unix::fs::{PermissionsExt, symlink};

use image::Digest as ImageDigest;
use image::docker::DockerConfig;

use super::*;
use crate::options::Tmpfs;
use crate::testing::Fixture;
use crate::volumes::NewVolume;

fn image(volumes: &str) -> Image {
    let document = format!(
        r#"{{"architecture": "amd64", "os": "linux", "config": {{"Volumes": {volumes}}},
            "rootfs": {{"type": "layers", "diff_ids": []}}}}"#
    );
    Image {
        id: ImageDigest::of(document.as_bytes()),
        names: Vec::new(),
        digests: Vec::new(),
        config: serde_json::from_str(&document).unwrap(),
        docker: DockerConfig::default(),
        layers: Vec::new(),
        created_s: None,
        stored_s: 0,
        size_bytes: 0,
    }
}

fn native(mounts: Vec<Mount>) -> Options {
    Options {
        isolation: Isolation::Native,
        mounts,
        ..Options::default()
    }
}

fn of_path(path: &Path, target: &str, form: Form) -> Mount {
    let source = Source::Bind {
        path: path.to_owned(),
        submounts: Submounts::Alike,
    };
    Mount {
        source,
        target: target.into(),
        read_only: false,
        form,
    }
}

fn of_volume(name: &str, target: &str) -> Mount {
    Mount {
        source: Source::Volume(Volume {
            name: Some(name.into()),
            ..Volume::default()
        }),
        target: target.into(),
        read_only: false,
        form: Form::Volume(String::new()),
    }
}

fn short_form() -> Form {
    Form::Volume(String::new())
}

fn resolve(fixture: &Fixture, options: &Options) -> Result<Vec<record::Mount>, EngineError> {
    fixture.engine.resolve_mounts(options, &image("{}"))
}

/// A container of what these options ask for.
fn create(fixture: &Fixture, name: &str, options: &Options) -> Result<String, EngineError> {
    let mounts = resolve(fixture, options)?;
    let asked = crate::asked::Asked {
        options: options.clone(),
        ..Default::default()
    };
    let new = fixture.new_container(name, |config| {
        config.run.mounts = mounts;
        config.asked = serde_json::value::to_raw_value(&asked).unwrap();
    });
    let id = new.config.id.clone();
    fixture.engine.create(new)?;
    Ok(id)
}

/// A folder whose own path has no symlinks.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(folder.path()).unwrap();
    (folder, path)
}

#[test]
fn a_path_is_resolved_once_and_shown_as_it_was_named() {
    let (fixture, (_folder, path)) = (Fixture::new(), folder());
    fs::create_dir(path.join("real")).unwrap();
    symlink("real", path.join("link")).unwrap();
    let named = path.join("link/../link");
    let mounts = resolve(&fixture, &native(vec![of_path(&named, "/x", Form::Mount)])).unwrap();
    assert_eq!(mounts[0].path, path.join("real"));
    let source = MountSource::Bind {
        named: path.join("link"),
        make: false,
    };
    assert_eq!(mounts[0].source, source);
    assert_eq!(mounts[0].cache, Cache::Shared);
    assert!(!mounts[0].single_file && !mounts[0].fill);
}

#[test]
fn a_file_is_a_share_of_its_own() {
    let (fixture, (_folder, path)) = (Fixture::new(), folder());
    fs::write(path.join("file"), "x").unwrap();
    let options = native(vec![of_path(&path.join("file"), "/x", short_form())]);
    let mounts = resolve(&fixture, &options).unwrap();
    assert!(mounts[0].single_file);
    assert_eq!(mounts[0].path, path.join("file"));
    create(&fixture, "web", &options).unwrap();
}

#[test]
fn a_socket_is_no_share() {
    let (fixture, (_folder, path)) = (Fixture::new(), folder());
    let socket = path.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, PermissionsExt::from_mode(0o660)).unwrap();
    let options = native(vec![of_path(&socket, "/x", short_form())]);
    let mounts = resolve(&fixture, &options).unwrap();
    assert_eq!(mounts[0].socket.unwrap().mode, 0o660);
}

#[test]
fn a_missing_path_is_made_for_the_short_option_and_refused_for_the_long_one() {
    let (fixture, (_folder, path)) = (Fixture::new(), folder());
    let missing = path.join("a/b");
    let refused = resolve(
        &fixture,
        &native(vec![of_path(&missing, "/x", Form::Mount)]),
    );
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("bind source path does not exist: /"),
        "{message}"
    );
    let options = native(vec![of_path(&missing, "/x", short_form())]);
    resolve(&fixture, &options).unwrap();
    assert!(
        !missing.exists(),
        "nothing is made while options are looked at"
    );
    let id = create(&fixture, "web", &options).unwrap();
    assert!(missing.is_dir());
    // And again, at its start.
    fs::remove_dir(&missing).unwrap();
    fixture.engine.start(&id).unwrap();
    assert!(missing.is_dir());
}

#[test]
fn a_path_that_became_a_symlink_is_neither_made_nor_followed() {
    let (fixture, (_folder, path)) = (Fixture::new(), folder());
    let named = path.join("a/b");
    let id = create(
        &fixture,
        "web",
        &native(vec![of_path(&named, "/x", short_form())]),
    )
    .unwrap();
    fs::remove_dir_all(path.join("a")).unwrap();
    fs::create_dir(path.join("secret")).unwrap();
    symlink("secret", path.join("a")).unwrap();
    assert!(fixture.engine.start(&id).is_err());
    assert!(!path.join("secret/b").exists());
}

#[test]
fn a_path_that_is_gone_at_the_start_is_named() {
    let (fixture, (_folder, path)) = (Fixture::new(), folder());
    let named = path.join("a");
    fs::create_dir(&named).unwrap();
    let id = create(
        &fixture,
        "web",
        &native(vec![of_path(&named, "/x", Form::Mount)]),
    )
    .unwrap();
    fs::remove_dir(&named).unwrap();
    let message = fixture.engine.start(&id).unwrap_err().to_string();
    assert!(
        message.ends_with(&format!("does not exist: {}", named.display())),
        "{message}"
    );
}

#[test]
fn parents_come_first_and_one_place_has_one_mount() {
    let fixture = Fixture::new();
    let mounts = ["/a/b/c", "/a", "/z", "/a/b"].map(|target| of_volume("data", target));
    let resolved = resolve(&fixture, &native(mounts.to_vec())).unwrap();
    let places: Vec<&str> = resolved
        .iter()
        .map(|mount| mount.destination.as_str())
        .collect();
    assert_eq!(places, ["/a", "/z", "/a/b", "/a/b/c"]);
    let twice = native(vec![of_volume("data", "/a"), of_volume("other", "/a")]);
    assert_eq!(
        resolve(&fixture, &twice).unwrap_err().to_string(),
        "Duplicate mount point: /a"
    );
    let mut with_tmpfs = native(vec![of_volume("data", "/a")]);
    with_tmpfs.tmpfs.push(Tmpfs {
        path: "/a".into(),
        options: Vec::new(),
    });
    assert!(resolve(&fixture, &with_tmpfs).is_err());
}

#[test]
fn an_image_s_volumes_are_anonymous_unless_something_is_mounted_there() {
    let fixture = Fixture::new();
    let image = image(r#"{"/data": {}, "/cache": {}, "/tmp": {}}"#);
    let mut options = native(vec![of_volume("mine", "/cache")]);
    options.tmpfs.push(Tmpfs {
        path: "/tmp".into(),
        options: Vec::new(),
    });
    let mounts = fixture.engine.resolve_mounts(&options, &image).unwrap();
    assert_eq!(mounts.len(), 2);
    assert_eq!(mounts[0].volume(), Some("mine"));
    assert_eq!(
        (mounts[0].mode.as_str(), mounts[1].mode.as_str()),
        ("z", "")
    );
    let MountSource::Volume {
        name, anonymous, ..
    } = &mounts[1].source
    else {
        panic!("{mounts:?}");
    };
    assert!(*anonymous && name.len() == 64);
    assert!(mounts[1].fill && mounts[1].cache == Cache::Exclusive);
}

#[test]
fn a_vm_gets_what_is_named_and_keeps_its_image_s_volumes_to_itself() {
    let fixture = Fixture::new();
    let image = image(r#"{"/data": {}}"#);
    let options = Options {
        isolation: Isolation::Vm,
        ..native(vec![])
    };
    let of_image = fixture.engine.resolve_mounts(&options, &image).unwrap();
    assert!(of_image.is_empty());
    let options = Options {
        mounts: vec![of_volume("data", "/data")],
        ..options
    };
    let named = fixture.engine.resolve_mounts(&options, &image).unwrap();
    assert_eq!(named[0].volume(), Some("data"));
    assert_eq!(named.len(), 1);
}

#[test]
fn another_container_s_mounts_are_taken_over_but_where_the_container_has_its_own() {
    let fixture = Fixture::new();
    let store = native(vec![of_volume("data", "/a"), of_volume("log", "/b")]);
    create(&fixture, "store", &store).unwrap();
    let from = |container: &str| VolumesFrom {
        container: container.into(),
        read_only: true,
        mode: "ro".into(),
    };
    let options = Options {
        volumes_from: vec![from("store")],
        ..native(vec![of_volume("mine", "/b")])
    };
    let mounts = resolve(&fixture, &options).unwrap();
    let seen: Vec<_> = mounts
        .iter()
        .map(|mount| (mount.volume().unwrap(), mount.read_only))
        .collect();
    assert_eq!(seen, [("data", true), ("mine", false)]);
    assert!(mounts[0].share.ends_with("-ro"));
    let nothing = Options {
        volumes_from: vec![from("nothing")],
        ..native(Vec::new())
    };
    let error = resolve(&fixture, &nothing).unwrap_err();
    assert_eq!(error.to_string(), "No such container: nothing");
}

#[test]
fn shares_are_named_for_what_they_show() {
    let (a, b) = (
        share_name(Path::new("/a"), false),
        share_name(Path::new("/b"), false),
    );
    let read_only = share_name(Path::new("/a"), true);
    assert!(a != b && read_only == format!("{a}-ro"));
    assert_eq!(a, share_name(Path::new("/a"), false));
    for name in [a, b, read_only] {
        let is_allowed = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase() || c == '-';
        assert!(
            name.len() <= protocol::fs::MAX_NAME_LEN && name.chars().all(is_allowed),
            "{name}"
        );
    }
}

#[test]
fn a_part_of_a_volume_is_in_it_or_refused() {
    let fixture = Fixture::new();
    let part = |subpath: &str| {
        let mut mount = of_volume("data", "/x");
        if let Source::Volume(volume) = &mut mount.source {
            volume.subpath = Some(subpath.into());
        }
        resolve(&fixture, &native(vec![mount]))
    };
    assert!(part("sub").is_err(), "there is no volume yet");
    let new = NewVolume {
        name: Some("data".into()),
        ..NewVolume::default()
    };
    let volume = fixture.engine.volume_create(new).unwrap();
    let root = fixture.engine.mountpoint(&volume);
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    symlink("/etc", root.join("out")).unwrap();
    symlink("sub", root.join("in")).unwrap();
    let mounts = part("sub/deep").unwrap();
    assert!(mounts[0].path.ends_with("data/_data/sub/deep") && !mounts[0].fill);
    assert!(part("file").unwrap()[0].single_file);
    assert!(part("in").unwrap()[0].path.ends_with("_data/sub"));
    for outside in ["out", "../..", "/etc", "nothing", "out/passwd"] {
        let error = part(outside).unwrap_err().to_string();
        assert!(
            error.contains("volume data has no directory or file"),
            "{error}"
        );
    }
}

#[test]
fn a_volume_of_a_directory_s_is_that_directory() {
    let (fixture, (_folder, path)) = (Fixture::new(), folder());
    let mut mount = of_volume("data", "/x");
    if let Source::Volume(volume) = &mut mount.source {
        let device = path.display().to_string();
        let options = [("type", "none"), ("o", "bind"), ("device", device.as_str())];
        volume.options = options
            .map(|(key, value)| (key.into(), value.into()))
            .into();
    }
    let options = native(vec![mount]);
    assert_eq!(resolve(&fixture, &options).unwrap()[0].path, path);
    create(&fixture, "web", &options).unwrap();
    let volume = fixture.engine.volume("data").unwrap();
    assert_eq!(fixture.engine.mountpoint(&volume), path);
    fixture.engine.remove("web", Default::default()).unwrap();
    fixture.engine.volume_remove("data", false).unwrap();
    assert!(path.exists(), "the directory is the user's");
}
