//! Images: what is answered at once.

use engine::image::store::{DeleteError, Deletion, ListFilter};
use engine::image::{Image, Reference};
use engine::{CommitOptions, Engine, images};
use serde_json::{Value, json};

use crate::call::{Answer, Call, empty, json};
use crate::convert::read;
use crate::documents::image as document;
use crate::error::Failure;
use crate::fields::Fields;
use crate::query::{boolean, unknown};

fn find(engine: &Engine, name: &str) -> Result<Image, Failure> {
    engine
        .images()?
        .find(name)?
        .ok_or_else(|| Failure::no_image(name))
}

fn label(key: &str, value: &str) -> Option<engine::image::store::LabelFilter> {
    let (has, (key, value)) = super::label(key, value)?;
    Some(engine::image::store::LabelFilter {
        key,
        value,
        negated: !has,
    })
}

fn until_s(value: &str) -> Result<Option<i64>, Failure> {
    const NANOS_PER_SEC: u64 = 1_000_000_000;
    let moment = read(values::moments::moment(value))?;
    Ok(i64::try_from(moment / NANOS_PER_SEC).ok())
}

pub(crate) fn list(call: Call) -> Answer {
    let mut filter = ListFilter::default();
    for (key, value) in call.query.filters()? {
        match (label(&key, &value), key.as_str()) {
            (Some(label), _) => filter.labels.push(label),
            (None, "dangling") => filter.dangling = Some(boolean(&key, &value)?),
            (None, "before") => filter.before = Some(value),
            (None, "since") => filter.since = Some(value),
            (None, "until") => filter.until_s = until_s(&value)?,
            (None, "reference") => filter.references.push(read(value.parse())?),
            (None, _) => return Err(unknown(&key)),
        }
    }
    let images = call.engine.images()?.list(&filter)?;
    json(200, &images.iter().map(row).collect::<Vec<_>>())
}

pub(crate) fn row(image: &Image) -> Value {
    let names = |names: &[Reference]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let labels = image
        .config
        .config()
        .as_ref()
        .and_then(|config| config.labels().clone());
    json!({
        "Id": image.id.to_string(),
        "ParentId": "",
        "RepoTags": names(&image.names),
        "RepoDigests": names(&image.digests),
        "Created": image.created_s.unwrap_or(0),
        "Size": image.size_bytes,
        "SharedSize": -1,
        "Containers": -1,
        "Labels": labels,
    })
}

pub(crate) fn inspect(call: Call) -> Answer {
    let found = document::find(call.engine, &call.target)?;
    json(200, &found.ok_or_else(|| Failure::no_image(&call.target))?)
}

pub(crate) fn history(call: Call) -> Answer {
    let image = find(call.engine, &call.target)?;
    let steps = call.engine.images()?.history(&image)?;
    let all = steps.iter().map(|step| {
        let tags: Vec<String> = step.tags.iter().map(ToString::to_string).collect();
        json!({
            "Id": step.id.as_ref().map_or_else(|| "<missing>".to_owned(), ToString::to_string),
            "Created": step.created_s.unwrap_or(0),
            "CreatedBy": step.created_by,
            "Tags": if tags.is_empty() { Value::Null } else { json!(tags) },
            "Size": step.size_bytes,
            "Comment": step.comment,
        })
    });
    json(200, &all.collect::<Vec<_>>())
}

fn named(call: &Call) -> Result<Option<Reference>, Failure> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_| Failure::invalid("invalid reference format"))
    };
    match (call.query.get("repo"), call.query.get("tag")) {
        (None, _) => Ok(None),
        (Some(name), None) => parse(name).map(Some),
        (Some(name), Some(tag)) => parse(&format!("{name}:{tag}")).map(Some),
    }
}

pub(crate) fn tag(call: Call) -> Answer {
    let image = find(call.engine, &call.target)?;
    let name = named(&call)?.ok_or_else(|| Failure::invalid("repo is missing"))?;
    call.engine.images()?.tag(&image, &name)?;
    empty(201)
}

fn deletions(all: &[Deletion]) -> Vec<Value> {
    let documents = all.iter().map(|deletion| match deletion {
        Deletion::Untagged(name) => json!({"Untagged": name}),
        Deletion::Deleted(id) => json!({"Deleted": id.to_string()}),
    });
    documents.collect()
}

pub(crate) fn remove(call: Call) -> Answer {
    let deleted = call
        .engine
        .remove_image(&call.target, call.query.flag("force"))
        .map_err(|error| {
            use engine::image::store::Error as Store;
            match error {
                engine::Error::Image(images::Error::Delete(DeleteError::Store(
                    Store::NotFound { .. },
                ))) => Failure::no_image(&call.target),
                error => error.into(),
            }
        })?;
    json(200, &deletions(&deleted.deletions))
}

pub(crate) fn prune(call: Call) -> Answer {
    let (mut until, mut labels, mut dangling) = (None, Vec::new(), true);
    for (key, value) in call.query.filters()? {
        match (label(&key, &value), key.as_str()) {
            (Some(label), _) => labels.push(label),
            (None, "dangling") => dangling = boolean(&key, &value)?,
            (None, "until") => until = until_s(&value)?,
            (None, _) => return Err(unknown(&key)),
        }
    }
    let pruned = call.engine.prune_images(!dangling, until, labels)?;
    json(
        200,
        &json!({"ImagesDeleted": deletions(&pruned.deletions), "SpaceReclaimed": pruned.freed_bytes}),
    )
}

pub(crate) fn commit(call: Call) -> Answer {
    // What the body says of the configuration is what the container has, as Docker's clients send it.
    if Fields::parse(&call.body)?
        .rest()
        .iter()
        .any(|(name, _)| name == "OnBuild")
    {
        return Err(Failure::not_built("OnBuild at a commit"));
    }
    let container = call
        .query
        .get("container")
        .ok_or_else(|| Failure::invalid("container is missing"))?;
    let changes = call
        .query
        .all("changes")
        .filter(|change| !change.is_empty());
    let changes = changes
        .flat_map(|change| change.split('\n'))
        .map(str::to_owned);
    let options = CommitOptions {
        name: named(&call)?,
        author: call.query.get("author").map(str::to_owned),
        comment: call.query.get("comment").map(str::to_owned),
        changes: changes.collect(),
        pause: call.query.flag_or("pause", true),
    };
    let image = call.engine.commit(container, options, &())?;
    json(201, &json!({"Id": image.id.to_string()}))
}
