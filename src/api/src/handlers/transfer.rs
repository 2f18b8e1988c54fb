//! Images from and to registries and archives.

use engine::image::{PullOptions, PushOptions, Reference, RootFs, Source};
use engine::options::Pull;
use engine::{Engine, images};
use serde_json::json;

use super::progress::Frames;
use crate::call::{Answer, Call, JSON, Sink, TAR, parts};
use crate::convert::read;
use crate::error::Failure;

fn reference(text: &str) -> Result<Reference, Failure> {
    text.parse()
        .map_err(|_| Failure::invalid("invalid reference format"))
}

/// `POST /images/create`: a pull, or an import of a root file system's archive.
pub(crate) fn create(mut call: Call) -> Answer {
    if let Some(source) = call.query.get("fromSrc") {
        if source != "-" {
            return Err(Failure::not_built(
                "importing from an address: send the archive; it",
            ));
        }
        return import(call);
    }
    drop(call.upload.take());
    let platform = call.query.get("platform").map(|text| text.parse());
    let platform = read(platform.transpose())?;
    let name = call
        .query
        .get("fromImage")
        .ok_or_else(|| Failure::invalid("fromImage is missing"))?;
    let name = match call.query.get("tag") {
        None => name.to_owned(),
        Some(digest) if digest.contains(':') => format!("{name}@{digest}"),
        Some(tag) => format!("{name}:{tag}"),
    };
    let name = reference(&name)?;
    let engine = call.engine;
    parts(JSON, move |sink| {
        let frames = Frames::new(sink);
        if let Err(failure) = pull(engine, &name, platform, &frames) {
            frames.failed(&failure.message);
        }
    })
}

fn pull(
    engine: &Engine,
    name: &Reference,
    platform: Option<engine::image::Platform>,
    frames: &Frames,
) -> Result<(), Failure> {
    let tag = name.tag().unwrap_or("latest");
    frames.send(&json!({"status": format!("Pulling from {}", name.repository()), "id": tag}));
    let store = engine.images()?;
    let demo: Result<Reference, _> = "demo".parse();
    if demo.as_ref() == Ok(name) {
        // It is built in: no registry has one of that name that is ours.
        images::resolve(&store, engine.installation(), "demo", Pull::Missing, frames)?;
        frames.status("Status: Image is up to date for demo:latest");
        return Ok(());
    }
    let options = PullOptions {
        platform,
        ..PullOptions::default()
    };
    let pulled = store.pull(name, &options, frames)?;
    frames.status(&format!("Digest: {}", pulled.digest));
    frames.status(&match pulled.up_to_date {
        true => format!("Status: Image is up to date for {name}"),
        false => format!("Status: Downloaded newer image for {name}"),
    });
    Ok(())
}

fn import(mut call: Call) -> Answer {
    let upload = call.upload.take();
    let mut upload = upload.ok_or_else(|| Failure::invalid("the archive is missing"))?;
    if call.query.all("changes").any(|change| !change.is_empty()) {
        return Err(Failure::not_built("changes at an import"));
    }
    let name = match (call.query.get("repo"), call.query.get("tag")) {
        (None, _) => return Err(Failure::not_built("an import without a name: name one; it")),
        (Some(name), None) => reference(name)?,
        (Some(name), Some(tag)) => reference(&format!("{name}:{tag}"))?,
    };
    let engine = call.engine;
    let message = call.query.get("message").map(str::to_owned);
    parts(JSON, move |sink| {
        let frames = Frames::new(sink);
        let imported = || -> Result<String, Failure> {
            let rootfs = RootFs {
                comment: message.as_deref(),
                ..RootFs::default()
            };
            let store = engine.images()?;
            let source = Source::Reader(&mut upload);
            let images = store.import_rootfs_or_images(source, Some(&name), rootfs, &())?;
            Ok(images
                .first()
                .map(|image| image.id.to_string())
                .unwrap_or_default())
        };
        let mut imported = imported;
        match imported() {
            Ok(id) => frames.status(&id),
            Err(failure) => frames.failed(&failure.message),
        }
    })
}

pub(crate) fn load(mut call: Call) -> Answer {
    let upload = call.upload.take();
    let mut upload = upload.ok_or_else(|| Failure::invalid("the archive is missing"))?;
    let engine = call.engine;
    parts(JSON, move |sink| {
        let frames = Frames::new(sink);
        let mut load = || -> Result<(), Failure> {
            for one in engine
                .images()?
                .load_archive(Source::Reader(&mut upload), None, &())?
            {
                if one.names.is_empty() {
                    frames.send(&json!({"stream": format!("Loaded image ID: {}\n", one.image.id)}));
                }
                for name in &one.names {
                    frames.send(&json!({"stream": format!("Loaded image: {name}\n")}));
                }
            }
            Ok(())
        };
        if let Err(failure) = load() {
            frames.failed(&failure.message);
        }
    })
}

pub(crate) fn save(call: Call) -> Answer {
    let names = vec![call.target.clone()];
    archive(call.engine, names)
}

pub(crate) fn save_several(call: Call) -> Answer {
    let names: Vec<String> = call
        .query
        .all("names")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        return Err(Failure::invalid("names is missing"));
    }
    archive(call.engine, names)
}

fn archive(engine: &'static Engine, names: Vec<String>) -> Answer {
    let store = engine.images()?;
    for name in &names {
        // With a repository's name, all of its tags are meant.
        let parsed: Result<Reference, _> = name.parse();
        let is_repository = parsed.is_ok_and(|reference| {
            let same = |other: &Reference| {
                (other.domain(), other.repository()) == (reference.domain(), reference.repository())
            };
            store
                .images()
                .is_ok_and(|images| images.iter().any(|image| image.names.iter().any(same)))
        });
        if store.find(name)?.is_none() && !is_repository {
            return Err(Failure::no_image(name));
        }
    }
    parts(TAR, move |mut sink: Sink| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut output = std::io::BufWriter::with_capacity(64 << 10, &mut sink);
        let saved = store.save(&names, &mut output, &());
        let flushed = std::io::Write::flush(&mut output);
        drop(output);
        if let Err(error) = saved {
            sink.fail(&error.to_string());
        } else if let Err(error) = flushed {
            tracing::debug!(%error, "the client has gone");
        }
    })
}

pub(crate) fn push(call: Call) -> Answer {
    let mut name = call.target.clone();
    let tag = call.query.get("tag").map(str::to_owned);
    if let Some(tag) = &tag {
        name = format!("{name}:{tag}");
    }
    let all_tags = tag.is_none();
    let name = reference(&name)?;
    let engine = call.engine;
    let store = engine.images()?;
    parts(JSON, move |sink| {
        let frames = Frames::new(sink);
        frames.status(&format!(
            "The push refers to repository [{}/{}]",
            name.domain(),
            name.repository()
        ));
        let options = PushOptions::default();
        let pushed = match all_tags {
            true => store.push_all(&name, &options, &frames),
            false => store.push(&name, &options, &frames).map(|one| vec![one]),
        };
        match pushed {
            Ok(pushed) => {
                for one in pushed {
                    let tag = one.name.tag().unwrap_or("latest");
                    frames.status(&format!(
                        "{tag}: digest: {} size: {}",
                        one.digest, one.size_bytes
                    ));
                    frames.send(&json!({"progressDetail": {}, "aux": {"Tag": tag, "Digest": one.digest.to_string(), "Size": one.size_bytes}}));
                }
            }
            Err(error) => frames.failed(&Failure::from(error).message),
        }
    })
}
