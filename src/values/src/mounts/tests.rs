use std::path::Path;

use super::*;

fn named(name: Option<&str>) -> Volume {
    Volume {
        name: name.map(str::to_owned),
        ..Volume::default()
    }
}

fn bound(mount: Mount) -> (PathBuf, Submounts) {
    match mount.source {
        Source::Bind { path, submounts } => (path, submounts),
        other => panic!("{other:?}"),
    }
}

fn in_volume(mount: Mount) -> Volume {
    match mount.source {
        Source::Volume(volume) => volume,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_volume_is_a_path_a_name_or_neither_and_a_place() {
    let mount = volume("/srv//x/:/data/./y/").unwrap();
    assert_eq!(mount.target, "/data/y");
    assert_eq!(mount.form, Form::Volume(String::new()));
    assert!(!mount.read_only);
    assert_eq!(bound(mount).0, Path::new("/srv//x/"));
    assert_eq!(in_volume(volume("data:/x").unwrap()), named(Some("data")));
    assert_eq!(in_volume(volume("/x").unwrap()), named(None));
}

#[test]
fn a_path_that_begins_with_a_dot_is_the_user_s_directory_s() {
    let here = std::env::current_dir().unwrap();
    for (text, path) in [
        ("./x:/y", here.join("x")),
        (".:/y", here.clone()),
        ("../x:/y", here.join("../x")),
    ] {
        assert_eq!(bound(volume(text).unwrap()).0, path, "{text}");
    }
    assert_eq!(in_volume(volume("x.y:/y").unwrap()), named(Some("x.y")));
}

#[test]
fn options_of_a_volume_are_of_each_kind_one() {
    let mount = volume("data:/x:ro,nocopy,Z").unwrap();
    assert!(mount.read_only);
    assert_eq!(mount.form, Form::Volume("ro,nocopy,Z".into()));
    assert!(in_volume(mount).no_copy);
    for options in ["rw", "z", "cached", "rprivate", "private,ro", ""] {
        assert!(volume(&format!("/a:/x:{options}")).is_ok(), "{options}");
    }
    for options in ["ro,rw", "z,Z", "x", "ro,", "noexec"] {
        let refused = volume(&format!("/a:/x:{options}"));
        assert_eq!(refused, Err(Error::Mode(options.into())), "{options}");
    }
    // The user's files are not copied anywhere.
    assert_eq!(volume("/a:/x:nocopy"), Err(Error::Mode("nocopy".into())));
}

#[test]
fn propagation_other_than_private_is_refused_with_why() {
    for word in ["shared", "rshared", "slave", "rslave"] {
        let error = volume(&format!("/a:/x:{word}")).unwrap_err();
        assert_eq!(error, Error::Propagation(word.into()));
        assert!(error.to_string().contains("is not possible: "));
        let text = format!("type=bind,src=/a,dst=/x,bind-propagation={word}");
        assert_eq!(mount(&text), Err(Error::Propagation(word.into())));
    }
}

#[test]
fn what_is_no_volume_is_refused() {
    for text in ["", ":", ":/x", "/a:", "/a:/b:ro:x", "/data:ro", "data:rw,z"] {
        assert_eq!(volume(text), Err(Error::Volume(text.into())), "{text}");
    }
    for (text, target) in [
        ("a1:b", "b"),
        ("/a:/", "/"),
        ("/a:/x/..", "/x/.."),
        ("x", "x"),
    ] {
        assert_eq!(volume(text), Err(Error::Target(target.into())), "{text}");
    }
}

#[test]
fn a_mount_is_a_volume_unless_it_says_otherwise() {
    let mounted = mount(
        "src=data,dst=/x,volume-nocopy,volume-label=a=b,volume-label=c,volume-subpath=p/q,ro",
    )
    .unwrap();
    assert!(mounted.read_only && mounted.form == Form::Mount);
    let volume = in_volume(mounted);
    assert_eq!(volume.name.as_deref(), Some("data"));
    assert!(volume.no_copy);
    assert_eq!(volume.subpath.as_deref(), Some(Path::new("p/q")));
    let labels: Vec<_> = volume
        .labels
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(labels, [("a", "b"), ("c", "")]);
    assert_eq!(in_volume(mount("target=/x").unwrap()), named(None));
    assert_eq!(
        in_volume(mount("TYPE=volume,Source=d1,Destination=/x").unwrap()),
        named(Some("d1"))
    );
}

#[test]
fn options_of_the_driver_may_hold_commas_in_quotes() {
    let volume = mount(
        r#"type=volume,source=d1,target=/x,volume-opt=type=none,"volume-opt=o=bind,x=""y""",volume-opt=device=/srv"#,
    );
    let options = in_volume(volume.unwrap()).options;
    assert_eq!(options["o"], "bind,x=\"y\"");
    assert_eq!(options["device"], "/srv");
    for text in ["dst=/x,\"src=a", "dst=/x,\"src=a\"b", "dst=/x,src=a\"b\""] {
        assert_eq!(mount(text), Err(Error::Quote(text.into())), "{text}");
    }
}

#[test]
fn a_bind_mount_says_what_becomes_of_what_is_below_it() {
    for (options, submounts) in [
        ("", Submounts::Alike),
        (",bind-recursive=enabled", Submounts::Alike),
        (",bind-recursive=disabled", Submounts::Hidden),
        (",bind-nonrecursive", Submounts::Hidden),
        (",bind-nonrecursive=false", Submounts::Alike),
        (",readonly,bind-recursive=writable", Submounts::AsTheyAre),
        (
            ",readonly,bind-propagation=rprivate,bind-recursive=readonly",
            Submounts::Alike,
        ),
    ] {
        let mounted = mount(&format!("type=bind,source=/a,target=/x{options}")).unwrap();
        assert_eq!(bound(mounted), ("/a".into(), submounts), "{options}");
    }
    let refused = |options: &str| {
        mount(&format!("type=bind,source=/a,target=/x,{options}"))
            .unwrap_err()
            .to_string()
    };
    assert!(refused("bind-recursive=readonly").contains("requires 'readonly'"));
    assert!(refused("bind-recursive=readonly,ro").contains("requires 'bind-propagation=rprivate'"));
    assert_eq!(
        refused("bind-recursive=x"),
        "invalid value for bind-recursive: x"
    );
}

#[test]
fn a_tmpfs_has_a_size_and_a_mode() {
    let mounted = mount("type=tmpfs,target=/x,tmpfs-size=64m,tmpfs-mode=1770").unwrap();
    let expected = Source::Tmpfs {
        size_bytes: Some(64 << 20),
        mode: Some(0o1770),
    };
    assert_eq!(mounted.source, expected);
    for bad in [
        "tmpfs-mode=9",
        "tmpfs-mode=17777",
        "tmpfs-size=x",
        "tmpfs-size=-1",
    ] {
        let error = mount(&format!("type=tmpfs,target=/x,{bad}")).unwrap_err();
        assert!(
            error.to_string().starts_with("invalid value for tmpfs-"),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_mount_is_refused_in_dockers_words() {
    for (text, message) in [
        ("type=bind,source=/a", "target is required"),
        ("type=,target=/x", "type is required"),
        (
            "type=nfs,target=/x",
            "mount type unknown: \"nfs\"; there are bind, volume and tmpfs",
        ),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("target=/x,nope=1", "unexpected key 'nope' in 'nope=1'"),
        (
            "target=/x,readonly=maybe",
            "invalid value for readonly: maybe",
        ),
        (
            "type=bind,target=/x",
            "invalid mount config for type \"bind\": field Source must not be empty",
        ),
        (
            "type=tmpfs,source=a,target=/x",
            "invalid mount config for type \"tmpfs\": field Source must not be specified",
        ),
        (
            "type=bind,source=/a,target=/x,volume-nocopy",
            "cannot mix 'volume-*' options with mount type 'bind'",
        ),
        (
            "source=a1,target=/x,bind-nonrecursive",
            "cannot mix 'bind-*' options with mount type 'volume'",
        ),
        (
            "source=a1,target=/x,tmpfs-size=1m",
            "cannot mix 'tmpfs-*' options with mount type 'volume'",
        ),
        (
            "target=/x,volume-subpath=a",
            "invalid mount config for type \"volume\": must not set Subpath when using anonymous volumes",
        ),
        (
            "source=a1,target=/x,volume-subpath=../a",
            "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
        ),
        (
            "source=a1,target=/x,volume-driver=nfs",
            "volume driver \"nfs\" is not known: hull has local alone",
        ),
    ] {
        assert_eq!(mount(text).unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn containers_whose_mounts_are_wanted_may_be_read_only() {
    let from = volumes_from("web:ro").unwrap();
    assert_eq!((from.container.as_str(), from.read_only), ("web", true));
    assert!(!volumes_from("web").unwrap().read_only);
    assert!(!volumes_from("web:rw").unwrap().read_only);
    for text in ["", ":ro", "web:x", "web:nocopy"] {
        assert_eq!(volumes_from(text), Err(Error::VolumesFrom(text.into())));
    }
}
