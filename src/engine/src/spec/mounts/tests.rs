use super::*;

fn tmpfs(path: &str, options: &[&str]) -> Tmpfs {
    Tmpfs {
        path: path.into(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn targets(mounts: &[Mount]) -> Vec<String> {
    let target = |mount: &Mount| mount.destination().display().to_string();
    mounts.iter().map(target).collect()
}

fn with(tmpfs: &[Tmpfs]) -> Result<Vec<Mount>, Error> {
    let options = Options {
        tmpfs: tmpfs.to_vec(),
        ..Options::default()
    };
    of(&options, &[], Vec::new())
}

#[test]
fn a_tmpfs_is_noexec_unless_the_user_says_exec() {
    let mount = tmpfs_mount(&tmpfs("/x", &["exec", "size=1m", "defaults"]));
    assert_eq!(
        mount.options().clone().unwrap(),
        words(&["nosuid", "nodev", "exec", "size=1m"])
    );
}

#[test]
fn parents_are_mounted_first_whatever_the_order_of_the_options() {
    let mounts = with(&[
        tmpfs("/a/b/c", &[]),
        tmpfs("/z", &[]),
        tmpfs("/a/b", &[]),
        tmpfs("/a", &[]),
    ]);
    assert_eq!(targets(&mounts.unwrap()), ["/z", "/a", "/a/b", "/a/b/c"]);
}

#[test]
fn nothing_is_mounted_in_proc() {
    for path in ["/proc", "/proc/sys/net"] {
        assert_eq!(
            with(&[tmpfs(path, &[])]),
            Err(Error::InsideProc(path.into()))
        );
    }
    assert!(with(&[tmpfs("/process", &[])]).is_ok());
}

#[test]
fn options_of_a_tmpfs_are_known() {
    for option in [
        "ro",
        "size=64m",
        "size=50%",
        "size=65536",
        "mode=1777",
        "mode=0700",
        "uid=1000",
        "nr_inodes=10k",
        "mpol=local",
    ] {
        assert!(with(&[tmpfs("/x", &[option])]).is_ok(), "{option}");
    }
    for option in [
        "bind",
        "size",
        "size=",
        "size=64mb",
        "size=-1",
        "mode=888",
        "mode=+7",
        "uid=root",
        "nr_inodes=5%",
        "Size=1m",
        "x=y",
    ] {
        let refused = with(&[tmpfs("/x", &[option])]);
        assert!(
            matches!(refused, Err(Error::TmpfsOption { .. })),
            "{option}"
        );
    }
}

#[test]
fn shared_memory_has_the_size_that_is_asked_for_or_is_not_there() {
    let shm = || {
        let mut mount = tmpfs_mount(&tmpfs("/dev/shm", &["mode=1777", "size=65536k"]));
        mount.set_source(Some("shm".into()));
        vec![mount]
    };
    let options = Options {
        shm_size_bytes: Some(1 << 30),
        ..Options::default()
    };
    let mounts = of(&options, &[], shm()).unwrap();
    let sizes: Vec<_> = mounts[0]
        .options()
        .iter()
        .flatten()
        .filter(|word| word.starts_with("size="))
        .collect();
    assert_eq!(sizes, ["size=1073741824"]);
    let options = Options {
        ipc: Ipc::WithoutShm,
        ..Options::default()
    };
    assert!(of(&options, &[], shm()).unwrap().is_empty());
}

#[test]
fn the_image_s_volumes_are_absolute_and_nothing_is_mounted_on_them() {
    let config = |volumes: &str| -> Config {
        serde_json::from_str(&format!(r#"{{"Volumes": {volumes}}}"#)).unwrap()
    };
    let image = config(r#"{"/data/": {}, "/var//lib/./x": {}, "/a/../cache": {}, "/data": {}}"#);
    let paths = ["/cache", "/data", "/var/lib/x"];
    assert_eq!(image_volumes(Some(&image)).unwrap(), paths);
    let mut document = Spec::default();
    document.set_mounts(Some(with(&[tmpfs("/cache", &[])]).unwrap()));
    assert_eq!(volumes(&document, Some(&image)).unwrap(), &paths[1..]);
    for bad in ["data", "/", ""] {
        let image = config(&format!(r#"{{"{bad}": {{}}}}"#));
        assert_eq!(
            image_volumes(Some(&image)),
            Err(Error::RelativeVolume(bad.into()))
        );
    }
}

fn share(destination: &str, read_only: bool, submounts: Submounts) -> record::Mount {
    record::Mount {
        source: record::MountSource::Bind {
            named: "/srv".into(),
            make: false,
        },
        share: "abc".into(),
        path: "/srv".into(),
        destination: destination.into(),
        read_only,
        submounts,
        single_file: false,
        socket: None,
        cache: protocol::fs::Cache::Shared,
        fill: false,
        mode: String::new(),
    }
}

#[test]
fn what_is_shared_is_bound_and_private_and_as_read_only_as_it_says() {
    let options = |read_only, submounts| {
        let mount = bind_mount(&share("/x", read_only, submounts), &Isolation::Native);
        mount.options().clone().unwrap()
    };
    assert_eq!(options(false, Submounts::Alike), ["rbind", "rprivate"]);
    assert_eq!(
        options(true, Submounts::Alike),
        ["rbind", "rprivate", "rro"]
    );
    assert_eq!(
        options(true, Submounts::AsTheyAre),
        ["rbind", "rprivate", "ro"]
    );
    assert_eq!(options(true, Submounts::Hidden), ["bind", "rprivate", "ro"]);
}

#[test]
fn a_share_s_source_is_a_path_of_the_container_s_machine() {
    let source = |isolation: &Isolation| {
        let mount = bind_mount(&share("/x", false, Submounts::Alike), isolation);
        mount.source().clone().unwrap()
    };
    assert_eq!(source(&Isolation::Native), Path::new("/srv"));
    assert_eq!(source(&Isolation::Vm), Path::new("/hull/shares/abc"));
}

#[test]
fn what_is_shared_takes_the_place_of_what_every_container_has_and_lies_in_its_parent() {
    let options = Options {
        tmpfs: vec![tmpfs("/a/b", &[])],
        ..Options::default()
    };
    let shared: Vec<record::Mount> = ["/a", "/dev/shm", "/a/b/c"]
        .map(|place| share(place, false, Submounts::Alike))
        .into();
    let own = vec![tmpfs_mount(&tmpfs("/dev/shm", &[]))];
    let mounts = of(&options, &shared, own).unwrap();
    assert_eq!(targets(&mounts), ["/a", "/a/b", "/dev/shm", "/a/b/c"]);
    assert_eq!(mounts[2].typ().as_deref(), Some("bind"));
}

#[test]
fn a_tmpfs_of_mount_has_its_size_and_mode() {
    use crate::options::mounts::Form;
    let options = Options {
        mounts: vec![crate::options::Mount {
            source: Source::Tmpfs {
                size_bytes: Some(65536),
                mode: Some(0o1770),
            },
            target: "/x".into(),
            read_only: true,
            form: Form::Mount,
        }],
        ..Options::default()
    };
    let mounts = of(&options, &[], Vec::new()).unwrap();
    assert_eq!(
        mounts[0].options().clone().unwrap(),
        words(&["nosuid", "nodev", "noexec", "size=65536", "mode=1770", "ro"])
    );
}

#[test]
fn a_thousand_mounts_are_put_in_order() {
    let shared: Vec<record::Mount> = (0..1000)
        .rev()
        .map(|number| {
            share(
                &format!("/m/{}{number}", "d/".repeat(number % 7)),
                false,
                Submounts::Alike,
            )
        })
        .collect();
    let mounts = of(&Options::default(), &shared, Vec::new()).unwrap();
    assert_eq!(mounts.len(), 1000);
    let depths: Vec<usize> = mounts
        .iter()
        .map(|mount| mount.destination().components().count())
        .collect();
    assert!(depths.is_sorted());
}
