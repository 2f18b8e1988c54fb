//! `Mounts` of a container's document, and what `HostConfig` says was asked for.

use engine::asked::Asked;
use engine::options::mounts::{Form, Mount, Source, Volume};
use engine::protocol::record::{self, ContainerConfig, MountSource, Submounts};
use engine::volumes::DRIVER;
use serde_json::{Map, Value, json};

/// What is mounted.
pub(crate) fn of(config: &ContainerConfig, asked: &Asked) -> Value {
    let shared = config.run.mounts.iter().map(shared);
    // Of a VM, they are directories of its writable layer.
    let volumes = config.run.volumes.iter().map(|path| {
        json!({
            "Type": "volume",
            "Name": "",
            "Source": "",
            "Destination": path,
            "Driver": DRIVER,
            "Mode": "",
            "RW": true,
            "Propagation": "",
        })
    });
    let tmpfs = asked
        .options
        .tmpfs
        .iter()
        .map(|tmpfs| of_tmpfs(&tmpfs.path, &tmpfs.options.join(","), false));
    let of_mounts = asked.options.mounts.iter();
    let of_mounts = of_mounts.filter(|mount| matches!(mount.source, Source::Tmpfs { .. }));
    let of_mounts = of_mounts.map(|mount| of_tmpfs(&mount.target, "", mount.read_only));
    Value::Array(
        shared
            .chain(volumes)
            .chain(tmpfs)
            .chain(of_mounts)
            .collect(),
    )
}

fn of_tmpfs(path: &str, mode: &str, read_only: bool) -> Value {
    json!({
        "Type": "tmpfs",
        "Source": "",
        "Destination": path,
        "Mode": mode,
        "RW": !read_only,
        "Propagation": "",
    })
}

fn shared(mount: &record::Mount) -> Value {
    let mut document = match &mount.source {
        MountSource::Bind { named, .. } => json!({
            "Type": "bind",
            "Source": named.display().to_string(),
            "Propagation": "rprivate",
        }),
        MountSource::Volume { name, .. } => json!({
            "Type": "volume",
            "Name": name,
            "Source": mount.path.display().to_string(),
            "Driver": DRIVER,
            "Propagation": "",
        }),
    };
    document["Destination"] = json!(mount.destination);
    document["Mode"] = json!(mount.mode);
    document["RW"] = json!(!mount.read_only);
    document
}

/// `HostConfig.Binds`: what `-v` was given, but for volumes without a name.
pub(crate) fn binds(mounts: &[Mount]) -> Value {
    let binds = mounts.iter().filter_map(|mount| {
        let Form::Volume(mode) = &mount.form else {
            return None;
        };
        let source = match &mount.source {
            Source::Bind { path, .. } => path.display().to_string(),
            Source::Volume(volume) => volume.name.clone()?,
            Source::Tmpfs { .. } => return None,
        };
        let options = match mode.as_str() {
            "" => String::new(),
            mode => format!(":{mode}"),
        };
        Some(format!("{source}:{}{options}", mount.target))
    });
    super::host_config::list(&binds.collect::<Vec<_>>())
}

/// `HostConfig.Mounts`: what `--mount` was given.
pub(crate) fn mounts(mounts: &[Mount]) -> Option<Value> {
    let mounts: Vec<Value> = mounts
        .iter()
        .filter(|mount| mount.form == Form::Mount)
        .map(asked)
        .collect();
    (!mounts.is_empty()).then_some(Value::Array(mounts))
}

/// Docker leaves out what is as it is by default.
fn asked(mount: &Mount) -> Value {
    let mut document = Map::new();
    let mut add = |name: &str, value: Value| {
        document.insert(name.into(), value);
    };
    match &mount.source {
        Source::Bind { path, submounts } => {
            add("Type", json!("bind"));
            add("Source", json!(path.display().to_string()));
            match submounts {
                Submounts::Alike => {}
                Submounts::AsTheyAre => {
                    add("BindOptions", json!({"ReadOnlyNonRecursive": true}));
                }
                Submounts::Hidden => add("BindOptions", json!({"NonRecursive": true})),
            }
        }
        Source::Volume(volume) => {
            add("Type", json!("volume"));
            if let Some(name) = &volume.name {
                add("Source", json!(name));
            }
            if let Some(options) = of_volume(volume) {
                add("VolumeOptions", options);
            }
        }
        Source::Tmpfs { size_bytes, mode } => {
            add("Type", json!("tmpfs"));
            let mut options = Map::new();
            if let Some(bytes) = size_bytes {
                options.insert("SizeBytes".into(), json!(bytes));
            }
            if let Some(mode) = mode {
                options.insert("Mode".into(), json!(mode));
            }
            if !options.is_empty() {
                add("TmpfsOptions", Value::Object(options));
            }
        }
    }
    add("Target", json!(mount.target));
    if mount.read_only {
        add("ReadOnly", json!(true));
    }
    Value::Object(document)
}

fn of_volume(volume: &Volume) -> Option<Value> {
    let mut options = Map::new();
    if volume.no_copy {
        options.insert("NoCopy".into(), json!(true));
    }
    if !volume.labels.is_empty() {
        options.insert("Labels".into(), json!(volume.labels));
    }
    if let Some(subpath) = &volume.subpath {
        options.insert("Subpath".into(), json!(subpath.display().to_string()));
    }
    if !volume.options.is_empty() {
        let driver = json!({"Name": DRIVER, "Options": volume.options});
        options.insert("DriverConfig".into(), driver);
    }
    (!options.is_empty()).then_some(Value::Object(options))
}

#[cfg(test)]
mod tests {
    use values::mounts::{mount, volume};

    use super::*;

    #[test]
    fn what_was_asked_for_is_shown_as_docker_shows_it() {
        let texts = ["/srv/x:/a:ro", "data:/b", "/c"];
        let mut asked: Vec<Mount> = texts.iter().map(|text| volume(text).unwrap()).collect();
        assert_eq!(binds(&asked), json!(["/srv/x:/a:ro", "data:/b"]));
        assert_eq!(mounts(&asked), None);
        let texts = [
            "type=bind,source=/srv,target=/d,readonly,bind-recursive=writable",
            "source=data,target=/e,volume-nocopy,volume-opt=type=none",
            "type=tmpfs,target=/f,tmpfs-size=1k,tmpfs-mode=700",
        ];
        asked.extend(texts.iter().map(|text| mount(text).unwrap()));
        let expected = json!([
            {"Type": "bind", "Source": "/srv", "Target": "/d", "ReadOnly": true,
             "BindOptions": {"ReadOnlyNonRecursive": true}},
            {"Type": "volume", "Source": "data", "Target": "/e",
             "VolumeOptions": {"NoCopy": true, "DriverConfig": {"Name": "local", "Options": {"type": "none"}}}},
            {"Type": "tmpfs", "Target": "/f", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o700}},
        ]);
        assert_eq!(mounts(&asked), Some(expected));
        assert_eq!(binds(&[]), Value::Null);
    }

    #[test]
    fn what_is_mounted_has_dockers_members() {
        let mut mount = record::Mount {
            source: MountSource::Bind {
                named: "/srv/link".into(),
                make: false,
            },
            share: "0".into(),
            path: "/srv/real".into(),
            destination: "/a".into(),
            read_only: true,
            submounts: Submounts::Alike,
            single_file: false,
            socket: None,
            cache: engine::protocol::fs::Cache::Shared,
            fill: false,
            mode: "ro".into(),
        };
        let expected = json!({"Type": "bind", "Source": "/srv/link", "Destination": "/a", "Mode": "ro", "RW": false,
            "Propagation": "rprivate"});
        assert_eq!(shared(&mount), expected);
        mount.source = MountSource::Volume {
            name: "data".into(),
            anonymous: false,
            subpath: Default::default(),
        };
        mount.mode = "z".into();
        let expected = json!({"Type": "volume", "Name": "data", "Source": "/srv/real", "Destination": "/a",
            "Driver": "local", "Mode": "z", "RW": false, "Propagation": ""});
        assert_eq!(shared(&mount), expected);
    }
}
