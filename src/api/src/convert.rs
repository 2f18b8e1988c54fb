//! From Docker's documents to the engine's options. Every member is taken, or refused by name ([`Fields::end`]).

pub(crate) mod endpoints;
mod host;
mod mounts;
mod update;

use std::collections::BTreeMap;
use std::fmt::Display;

use engine::options::{Attach, Health, Isolation, Options, Pull};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::Failure;
use crate::fields::Fields;
use crate::query::Query;

pub use update::update;

/// Isolation by a label, for clients that have no `HostConfig.Isolation`.
const ISOLATION_LABEL: &str = "hull.isolation";

/// A command: words, or a single one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Words {
    One(String),
    Several(Vec<String>),
}

impl Words {
    pub(crate) fn all(self) -> Vec<String> {
        match self {
            Words::One(word) => vec![word],
            Words::Several(words) => words,
        }
    }
}

/// What a set looks like: its members are the names.
pub(crate) type Set = BTreeMap<String, IgnoredAny>;

/// A value that a parser refuses is the client's fault.
pub(crate) fn read<T, E: Display>(value: Result<T, E>) -> Result<T, Failure> {
    value.map_err(|error| Failure::invalid(error.to_string()))
}

/// The options of `POST /containers/create`; `isolation` is for those that ask for none.
pub fn create(body: &[u8], query: &Query, isolation: &Isolation) -> Result<Options, Failure> {
    let mut fields = Fields::parse(body)?;
    if body.is_empty() {
        return Err(Failure::invalid(
            "invalid JSON: got EOF while reading request body",
        ));
    }
    if let Some(platform) = query.get("platform") {
        read(values::machine::platform(platform))?;
    }
    let name = query.get("name");
    let labels: BTreeMap<String, String> = fields.get("Labels")?;
    let stdin_once: bool = fields.get("StdinOnce")?;
    // The engine's attachment of the creator is what ends the input with it.
    let _attached: bool = fields.get("AttachStdin")?;
    let mut options = Options {
        image: fields
            .text("Image")?
            .ok_or_else(|| Failure::invalid("no image specified"))?,
        name: name.map(|name| name.strip_prefix('/').unwrap_or(name).to_owned()),
        command: fields
            .take::<Words>("Cmd")?
            .map(Words::all)
            .unwrap_or_default(),
        entrypoint: entrypoint(&mut fields)?,
        interactive: fields.get("OpenStdin")?,
        terminal: fields.get("Tty")?,
        attach: Attach {
            stdin: stdin_once,
            stdout: fields.get("AttachStdout")?,
            stderr: fields.get("AttachStderr")?,
        },
        hostname: fields.text("Hostname")?,
        domainname: fields.text("Domainname")?,
        user: fields.text("User")?,
        workdir: fields.text("WorkingDir")?,
        stop_signal: match fields.text("StopSignal")? {
            Some(text) => read(values::lifecycle::signal(&text))?,
            None => None,
        },
        stop_timeout_s: fields.take("StopTimeout")?,
        health: health(fields.object("Healthcheck")?)?,
        pull: Pull::Never,
        ..Options::default()
    };
    for text in fields.get::<Vec<String>>("Env")? {
        options
            .env
            .push(read(values::environment::variable(&text, |_| Ok(None)))?);
    }
    for text in fields.get::<Set>("ExposedPorts")?.into_keys() {
        options.exposed.push(read(values::ports::port(&text))?);
    }
    let volumes: Set = fields.get("Volumes")?;
    if fields.get::<bool>("NetworkDisabled")? {
        options.network = Some(engine::options::Network::None);
    }
    if let Some(mac) = fields.text("MacAddress")? {
        options.place.mac = read(values::names::mac(&mac))?;
    }
    let networks = fields.object("NetworkingConfig")?;
    let host = fields.object("HostConfig")?;
    // Without a meaning on Linux.
    let _escaped: bool = fields.get("ArgsEscaped")?;
    fields.end()?;
    let asked = host::host_config(host, &mut options)?;
    endpoints::endpoints(networks, &mut options)?;
    mounts::anonymous(volumes, &mut options)?;
    let asked = asked.or_else(|| labels.get(ISOLATION_LABEL).cloned());
    options.isolation = match asked {
        Some(text) => read(values::machine::isolation(&text))?,
        None => isolation.clone(),
    };
    options.labels = labels;
    Ok(options)
}

/// An empty list is Docker's word for none, and `null` for the image's.
fn entrypoint(fields: &mut Fields) -> Result<Option<Vec<String>>, Failure> {
    Ok(fields.take::<Words>("Entrypoint")?.map(Words::all))
}

fn health(mut fields: Fields) -> Result<Health, Failure> {
    const NANOS_PER_MS: u64 = 1_000_000;
    let test: Vec<String> = fields.get("Test")?;
    let mut duration = |name: &str| -> Result<Option<u64>, Failure> {
        match fields.get::<i64>(name)? {
            0 => Ok(None),
            ns => match u64::try_from(ns).map(|ns| ns / NANOS_PER_MS) {
                Ok(ms) if ms > 0 => Ok(Some(ms)),
                _ => Err(Failure::invalid(format!(
                    "{name} in Healthcheck cannot be less than 1ms"
                ))),
            },
        }
    };
    let mut health = Health {
        interval_ms: duration("Interval")?,
        timeout_ms: duration("Timeout")?,
        start_period_ms: duration("StartPeriod")?,
        start_interval_ms: duration("StartInterval")?,
        ..Health::default()
    };
    let retries: i64 = fields.get("Retries")?;
    health.retries = match u32::try_from(retries) {
        Ok(0) => None,
        Ok(retries) => Some(retries),
        Err(_) => {
            return Err(Failure::invalid(
                "Retries in Healthcheck cannot be negative",
            ));
        }
    };
    match test.split_first() {
        None => {}
        Some((kind, rest)) => match (kind.as_str(), rest) {
            ("NONE", []) => {
                health = Health {
                    disabled: true,
                    ..Health::default()
                }
            }
            ("CMD", words) if !words.is_empty() => health.words = words.to_vec(),
            ("CMD-SHELL", [command]) => health.command = Some(command.clone()),
            // As Docker's classic clients write "as in the image".
            ("", []) => {}
            _ => {
                return Err(Failure::invalid(format!(
                    "Unknown healthcheck type: {kind}"
                )));
            }
        },
    }
    fields.end()?;
    Ok(health)
}

#[cfg(test)]
mod tests;
