//! What is mounted: `Binds`, `Mounts`, `Volumes`, `Tmpfs`, `VolumesFrom`.

use std::collections::BTreeMap;

use engine::options::Options;
use engine::options::mounts::{Form, Mount, Source, Volume};
use engine::protocol::record::Submounts;

use super::{Set, read};
use crate::error::Failure;
use crate::fields::Fields;

pub(super) fn mounts(fields: &mut Fields, options: &mut Options) -> Result<(), Failure> {
    for text in fields.get::<Vec<String>>("Binds")? {
        // The server's own folder is not the client's.
        if text.starts_with('.') {
            return Err(Failure::invalid(format!(
                "invalid volume specification: '{text}': the path is not absolute"
            )));
        }
        options.mounts.push(read(values::mounts::volume(&text))?);
    }
    for mount in fields.objects("Mounts")? {
        options.mounts.push(one(mount)?);
    }
    for (path, words) in fields.get::<BTreeMap<String, String>>("Tmpfs")? {
        options
            .tmpfs
            .push(read(values::tmpfs(&format!("{path}:{words}")))?);
    }
    for text in fields.get::<Vec<String>>("VolumesFrom")? {
        options
            .volumes_from
            .push(read(values::mounts::volumes_from(&text))?);
    }
    let driver = fields.text("VolumeDriver")?.unwrap_or_default();
    read(values::mounts::driver(&driver))
}

/// `Config.Volumes`: those without a name, where nothing else is mounted.
pub(super) fn anonymous(volumes: Set, options: &mut Options) -> Result<(), Failure> {
    for path in volumes.into_keys() {
        let mount = read(values::mounts::volume(&path))?;
        let is_taken = options
            .mounts
            .iter()
            .any(|known| known.target == mount.target)
            || options.tmpfs.iter().any(|known| known.path == mount.target);
        if !is_taken {
            options.mounts.push(mount);
        }
    }
    Ok(())
}

fn one(mut fields: Fields) -> Result<Mount, Failure> {
    let kind = fields.text("Type")?.unwrap_or_default();
    let source = fields.text("Source")?;
    let target = fields.text("Target")?.unwrap_or_default();
    let target = values::absolute(&target).ok_or_else(|| {
        Failure::invalid(format!(
            "invalid mount target, must be an absolute path in the container: {target:?}"
        ))
    })?;
    let read_only = fields.get("ReadOnly")?;
    // Of Docker's on a Mac.
    fields.text("Consistency")?;
    let source = match kind.as_str() {
        "bind" => bind(source, fields.object("BindOptions")?)?,
        "volume" => volume(source, fields.object("VolumeOptions")?)?,
        "tmpfs" => tmpfs(fields.object("TmpfsOptions")?)?,
        other => return Err(Failure::invalid(format!("mount type unknown: {other:?}"))),
    };
    fields.end()?;
    Ok(Mount {
        source,
        target,
        read_only,
        form: Form::Mount,
    })
}

fn bind(source: Option<String>, mut fields: Fields) -> Result<Source, Failure> {
    let path = source.filter(|path| path.starts_with('/'));
    let path = path.ok_or_else(|| {
        Failure::invalid(
            "invalid mount config for type \"bind\": the source must be an absolute path",
        )
    })?;
    match fields.text("Propagation")?.as_deref() {
        None | Some("private" | "rprivate") => {}
        Some(other) => {
            return Err(Failure::new(
                501,
                format!("propagation {other} is not something that hull can do"),
            ));
        }
    }
    let hidden: bool = fields.get("NonRecursive")?;
    let as_they_are: bool = fields.get("ReadOnlyNonRecursive")?;
    // What is so here: all below is as the mount itself.
    fields.get::<bool>("ReadOnlyForceRecursive")?;
    fields.end()?;
    Ok(Source::Bind {
        path: path.into(),
        submounts: match (hidden, as_they_are) {
            (true, _) => Submounts::Hidden,
            (false, true) => Submounts::AsTheyAre,
            (false, false) => Submounts::Alike,
        },
    })
}

fn volume(name: Option<String>, mut fields: Fields) -> Result<Source, Failure> {
    let mut driver = fields.object("DriverConfig")?;
    read(values::mounts::driver(
        &driver.text("Name")?.unwrap_or_default(),
    ))?;
    let volume = Volume {
        name,
        no_copy: fields.get("NoCopy")?,
        subpath: fields.text("Subpath")?.map(Into::into),
        labels: fields.get("Labels")?,
        options: driver.get("Options")?,
    };
    driver.end()?;
    fields.end()?;
    Ok(Source::Volume(volume))
}

fn tmpfs(mut fields: Fields) -> Result<Source, Failure> {
    let source = Source::Tmpfs {
        size_bytes: fields.take::<u64>("SizeBytes")?.filter(|bytes| *bytes > 0),
        mode: fields.take::<u32>("Mode")?.filter(|mode| *mode > 0),
    };
    fields.end()?;
    Ok(source)
}
