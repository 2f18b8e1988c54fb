//! Containers: what is answered at once.

use engine::list::{Filter, Filters, ListOptions, Listed};
use engine::options::Options;
use engine::protocol::agent::Interface;
use engine::protocol::record::{Attachment, Status, Transport};
use engine::prune::PruneFilters;
use engine::{Engine, MakeError, Remove, Stop, time};
use serde_json::{Map, Value, json};

use crate::call::{Answer, Call, empty, json};
use crate::convert;
use crate::documents::container as document;
use crate::error::Failure;
use crate::query::unknown;

const NANOS_PER_SEC: u64 = 1_000_000_000;

impl From<MakeError> for Failure {
    fn from(error: MakeError) -> Failure {
        match error {
            MakeError::Image(error) => error.into(),
            MakeError::Prepare(error) => error.into(),
            MakeError::Engine(error) => error.into(),
        }
    }
}

pub(crate) fn create(call: Call) -> Answer {
    let options: Options = convert::create(&call.body, &call.query, &call.isolation)?;
    let id = call.engine.make(&options, &()).map_err(|error| {
        let is_image = matches!(error, MakeError::Image(_));
        let failure = Failure::from(error);
        // Of 404 clients make that the image is not here, and fetch it.
        match failure.status {
            404 if !is_image => Failure::invalid(failure.message),
            _ => failure,
        }
    })?;
    json(201, &json!({"Id": id, "Warnings": []}))
}

pub(crate) fn start(call: Call) -> Answer {
    let container = call.engine.container(&call.target)?;
    let id = &container.config.id;
    if matches!(container.state.status, Status::Running | Status::Restarting) {
        return empty(304);
    }
    match call.engine.start(id) {
        Ok(()) => empty(204),
        Err(error) => {
            if container.config.auto_remove {
                forget(call.engine, id);
            }
            Err(error.into())
        }
    }
}

/// A container that could not be started and is to be removed at its end is removed now.
fn forget(engine: &Engine, id: &str) {
    let how = Remove {
        force: true,
        volumes: true,
    };
    if let Err(error) = engine.remove(id, how) {
        tracing::debug!(%error, "it was removed by its monitor");
    }
}

fn how_to_stop(call: &Call) -> Result<Stop, Failure> {
    Ok(Stop {
        signal: match call.query.get("signal") {
            Some(signal) => convert::read(values::lifecycle::signal(signal))?,
            None => None,
        },
        timeout_s: call.query.integer("t")?,
    })
}

pub(crate) fn stop(call: Call) -> Answer {
    match call.engine.stop(&call.target, how_to_stop(&call)?)? {
        true => empty(204),
        false => empty(304),
    }
}

pub(crate) fn restart(call: Call) -> Answer {
    call.engine.restart(&call.target, how_to_stop(&call)?)?;
    empty(204)
}

pub(crate) fn kill(call: Call) -> Answer {
    let signal = call.query.get("signal").unwrap_or("KILL");
    let signal = convert::read(values::lifecycle::signal(signal))?.unwrap_or(9);
    call.engine.kill(&call.target, signal)?;
    empty(204)
}

pub(crate) fn rename(call: Call) -> Answer {
    let name = call.query.get("name").unwrap_or_default();
    if name.is_empty() {
        return Err(Failure::invalid("Neither old nor new names may be empty"));
    }
    call.engine.rename(&call.target, name)?;
    empty(204)
}

pub(crate) fn pause(call: Call) -> Answer {
    call.engine.pause(&call.target)?;
    empty(204)
}

pub(crate) fn unpause(call: Call) -> Answer {
    call.engine.unpause(&call.target)?;
    empty(204)
}

pub(crate) fn resize(call: Call) -> Answer {
    call.engine
        .resize(&call.target, super::terminal_size(&call.query)?)?;
    empty(200)
}

pub(crate) fn update(call: Call) -> Answer {
    call.engine
        .update(&call.target, convert::update(&call.body)?)?;
    json(200, &json!({"Warnings": []}))
}

pub(crate) fn remove(call: Call) -> Answer {
    if call.query.flag("link") {
        return Err(Failure::not_built("removing a link"));
    }
    let how = Remove {
        force: call.query.flag("force"),
        volumes: call.query.flag("v"),
    };
    call.engine.remove(&call.target, how)?;
    empty(204)
}

pub(crate) fn inspect(call: Call) -> Answer {
    let container = call.engine.container(&call.target)?;
    json(
        200,
        &document::document(call.engine, &container, call.query.flag("size"))?,
    )
}

pub(crate) fn list(call: Call) -> Answer {
    let mut filters = Vec::new();
    for (key, value) in call.query.filters()? {
        filters.push(Filter::parse(&key, &value).map_err(engine::Error::from)?);
    }
    let sizes = call.query.flag("size");
    let options = ListOptions {
        all: call.query.flag("all"),
        last: call
            .query
            .integer("limit")?
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| *limit > 0),
        sizes,
        filters: Filters(filters),
    };
    let listed = call.engine.list(&options)?;
    let networks = call.engine.networks(&Default::default())?;
    let network_id = |name: &str| {
        let found = networks.iter().find(|one| one.name == name);
        found.map(|one| one.id.clone()).unwrap_or_default()
    };
    let images = match sizes {
        true => call.engine.images()?.images()?,
        false => Vec::new(),
    };
    let now = time::now_ns();
    let all = listed.iter().map(|one| {
        let mut row = row(one, now, network_id);
        if sizes {
            let image = images
                .iter()
                .find(|image| image.id.to_string() == one.summary.image_id);
            let own = one.size_bytes.unwrap_or(0);
            row["SizeRw"] = json!(own);
            row["SizeRootFs"] = json!(own + image.map_or(0, |image| image.size_bytes));
        }
        row
    });
    json(200, &all.collect::<Vec<_>>())
}

fn row(one: &Listed, now_ns: u64, network_id: impl Fn(&str) -> String) -> Value {
    let summary = &one.summary;
    let names = summary.networks();
    let interfaces = one.state.interfaces.iter();
    let interfaces = interfaces.filter(|_| one.state.status.is_alive());
    let endpoints = names.iter().map(|name| {
        // An earlier version did not say which network an interface is on: it was the only one.
        let is_there = |it: &&Attachment| it.network == *name || it.network.is_empty();
        let found = interfaces.clone().find(is_there).map(|it| &it.interface);
        ((*name).to_owned(), endpoint(&network_id(name), found))
    });
    let mounts = summary.mounts.iter().map(|mount| match &mount.volume {
        Some(name) => json!({"Type": "volume", "Name": name, "Source": "", "Destination": mount.destination,
            "Driver": "local", "Mode": "", "RW": true, "Propagation": ""}),
        None => json!({"Type": "bind", "Source": mount.path.display().to_string(), "Destination": mount.destination,
            "Mode": "", "RW": true, "Propagation": "rprivate"}),
    });
    json!({
        "Id": summary.id,
        "Names": [format!("/{}", summary.name)],
        "Image": summary.image,
        "ImageID": summary.image_id,
        "Command": summary.command,
        "Created": summary.created_ns / NANOS_PER_SEC,
        "Ports": ports(one),
        "Labels": summary.labels,
        "State": document::state_word(one.state.status),
        "Status": one.status_text(now_ns),
        "HostConfig": {"NetworkMode": names.first().copied().unwrap_or("none")},
        "NetworkSettings": {"Networks": Map::from_iter(endpoints)},
        "Mounts": mounts.collect::<Vec<_>>(),
    })
}

/// A place on a network, with its addresses while the container runs.
fn endpoint(network_id: &str, interface: Option<&Interface>) -> Value {
    let mut endpoint = json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": null,
        "NetworkID": network_id,
        "EndpointID": "",
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DriverOpts": null,
    });
    document::add_address(&mut endpoint, interface);
    endpoint
}

fn ports(one: &Listed) -> Vec<Value> {
    if !one.state.status.is_alive() {
        return Vec::new();
    }
    let published = one.state.ports.iter().map(|port| {
        json!({"IP": port.host_address.to_string(), "PrivatePort": port.port.number, "PublicPort": port.host_port,
            "Type": port.port.transport.name()})
    });
    let exposed = one
        .summary
        .exposed_ports
        .iter()
        .filter_map(|text| values::ports::port(text).ok());
    let exposed = exposed.filter(|port| !one.state.ports.iter().any(|known| known.port == *port));
    let exposed = exposed.map(|port| {
        let kind = match port.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        json!({"PrivatePort": port.number, "Type": kind})
    });
    published.chain(exposed).collect()
}

pub(crate) fn prune(call: Call) -> Answer {
    let mut filters = PruneFilters::default();
    for (key, value) in call.query.filters()? {
        match (super::label(&key, &value), key.as_str()) {
            (Some((true, label)), _) => filters.labels.push(label),
            (Some((false, label)), _) => filters.without_labels.push(label),
            (None, "until") => {
                filters.until_ns = Some(convert::read(values::moments::moment(&value))?)
            }
            (None, _) => return Err(unknown(&key)),
        }
    }
    let pruned = call.engine.prune_containers(&filters)?;
    json(
        200,
        &json!({"ContainersDeleted": pruned.containers, "SpaceReclaimed": pruned.freed_bytes}),
    )
}

pub(crate) fn top(call: Call) -> Answer {
    let words = call.query.get("ps_args").unwrap_or("-ef");
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    let columns = convert::read(crate::documents::processes::columns(&words))?;
    let processes = call.engine.top(&call.target)?;
    let now_s = time::now_ns() / NANOS_PER_SEC;
    let rows = processes.iter().map(|process| {
        columns
            .iter()
            .map(|(_, cell)| cell(process, now_s))
            .collect::<Vec<_>>()
    });
    let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    json(
        200,
        &json!({"Titles": titles, "Processes": rows.collect::<Vec<_>>()}),
    )
}
