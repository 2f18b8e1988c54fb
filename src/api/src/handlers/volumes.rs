//! Volumes.

use engine::volumes::{NewVolume, VolumeFilters};
use serde_json::json;

use crate::call::{Answer, Call, empty, json};
use crate::documents::volume::document;
use crate::error::Failure;
use crate::fields::Fields;
use crate::query::{boolean, unknown};

pub(crate) fn list(call: Call) -> Answer {
    let mut filters = VolumeFilters::default();
    for (key, value) in call.query.filters()? {
        match key.as_str() {
            "name" => filters.names.push(value),
            "driver" => filters.drivers.push(value),
            "label" => filters.labels.push(values::moments::label(&value)),
            "dangling" => filters.dangling = Some(boolean(&key, &value)?),
            _ => return Err(unknown(&key)),
        }
    }
    let volumes = call.engine.volumes(&filters)?;
    let all = volumes.iter().map(|one| document(call.engine, &one.volume));
    json(
        200,
        &json!({"Volumes": all.collect::<Vec<_>>(), "Warnings": null}),
    )
}

pub(crate) fn inspect(call: Call) -> Answer {
    let volume = call.engine.volume(&call.target)?;
    json(200, &document(call.engine, &volume))
}

pub(crate) fn create(call: Call) -> Answer {
    let mut fields = Fields::parse(&call.body)?;
    let new = NewVolume {
        name: fields.text("Name")?,
        driver: fields.text("Driver")?,
        labels: fields.get("Labels")?,
        options: fields.get("DriverOpts")?,
    };
    fields.end()?;
    let volume = call.engine.volume_create(new)?;
    json(201, &document(call.engine, &volume))
}

pub(crate) fn remove(call: Call) -> Answer {
    call.engine
        .volume_remove(&call.target, call.query.flag("force"))?;
    empty(204)
}

pub(crate) fn prune(call: Call) -> Answer {
    let mut filters = VolumeFilters::default();
    // Before 1.42 all that are not used went.
    let mut all = call.version < crate::router::Version(42);
    for (key, value) in call.query.filters()? {
        match (super::label(&key, &value), key.as_str()) {
            (Some((true, label)), _) => filters.labels.push(label),
            (Some((false, label)), _) => filters.without_labels.push(label),
            (None, "all") => all = boolean(&key, &value)?,
            (None, _) => return Err::<_, Failure>(unknown(&key)),
        }
    }
    let pruned = call.engine.prune_volumes(all, &filters)?;
    json(
        200,
        &json!({"VolumesDeleted": pruned.volumes, "SpaceReclaimed": pruned.freed_bytes}),
    )
}
