//! `inspect`: everything that is known of containers, images, volumes, networks and pods, as Docker's documents.

use api::documents::{container, image};
use clap::{Args, ValueEnum};
use engine::{Engine, Kind};
use serde_json::Value;

use crate::{complain, out, output, say};

/// Show everything that is known of containers or images
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hull inspect -f '{{.State.Status}} {{.State.ExitCode}}' web
  hull inspect -f '{{json .Config.Labels}}' web
  hull inspect -f '{{range .Config.Env}}{{println .}}{{end}}' web")]
pub(crate) struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show how much the containers take of the disk
    #[arg(short, long)]
    size: bool,
    /// What the names name, if not whichever there is
    #[arg(long, value_name = "TYPE")]
    r#type: Option<Type>,
    /// Names or identifiers
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
}

/// What a name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Type {
    /// A container
    Container,
    /// An image
    Image,
    /// A pod
    Pod,
    /// A volume
    Volume,
    /// A network
    Network,
}

impl Type {
    fn absent(of: Option<Type>, name: &str) -> String {
        match of {
            None => format!("Error: No such object: {name}"),
            Some(Type::Container) => format!("Error: No such container: {name}"),
            Some(Type::Image) => format!("Error: No such image: {name}"),
            Some(Type::Pod) => format!("Error: No such pod: {name}"),
            Some(Type::Volume) => format!("Error: No such volume: {name}"),
            Some(Type::Network) => format!("Error: No such network: {name}"),
        }
    }
}

/// `hull inspect`, and the same of one type.
pub(crate) fn inspect(args: InspectArgs, only: Option<Type>) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    let only = only.or(args.r#type);
    let find = |name: &str| find(&engine, name, only, args.size);
    print_all(&args.names, args.format.as_deref(), only, find)
}

/// Prints a document for each name, and says which there is none of.
pub(crate) fn print_all(
    names: &[String],
    format: Option<&str>,
    only: Option<Type>,
    find: impl Fn(&str) -> Result<Option<Value>, engine::Error>,
) -> anyhow::Result<u8> {
    let mut found = Vec::new();
    let mut code = 0;
    for name in names {
        match find(name) {
            Ok(Some(document)) => found.push(document),
            Ok(None) => {
                say(&Type::absent(only, name));
                code = 1;
            }
            Err(error) => {
                complain(&error.into());
                code = 1;
            }
        }
    }
    print_documents(format, found)?;
    Ok(code)
}

/// The same of volumes and networks, of which Docker prints what there is before it says what there is none of.
pub(crate) fn print_found(
    names: &[String],
    format: Option<&str>,
    find: impl Fn(&str) -> Result<Value, engine::Error>,
) -> anyhow::Result<u8> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match find(name) {
            Ok(document) => found.push(document),
            Err(error) => errors.push(error),
        }
    }
    print_documents(format, found)?;
    let code = u8::from(!errors.is_empty());
    errors.into_iter().for_each(|error| complain(&error.into()));
    Ok(code)
}

fn print_documents(format: Option<&str>, found: Vec<Value>) -> anyhow::Result<()> {
    if matches!(format, None | Some("")) {
        return out(&format!("{}\n", output::pretty(&Value::Array(found))));
    }
    for document in &found {
        if let Some(text) = output::document(format, document)? {
            out(&text)?;
        }
    }
    Ok(())
}

/// The document of whatever has this name: a container before an image, as Docker has it.
fn find(
    engine: &Engine,
    name: &str,
    only: Option<Type>,
    size: bool,
) -> Result<Option<Value>, engine::Error> {
    let wants = |of: Type| only.is_none_or(|only| only == of);
    if wants(Type::Container)
        && let Some(container) = unless_absent(engine.container(name))?
    {
        return container::document(engine, &container, size).map(Some);
    }
    if wants(Type::Image)
        && let Some(document) = image::find(engine, name)?
    {
        return Ok(Some(document));
    }
    if wants(Type::Volume)
        && let Some(volume) = unless_absent(engine.volume(name))?
    {
        return Ok(Some(api::documents::volume::document(engine, &volume)));
    }
    if wants(Type::Network)
        && let Some(network) = unless_absent(engine.any_network(name))?
    {
        return api::documents::network::document(engine, &network).map(Some);
    }
    if wants(Type::Pod)
        && let Some(pod) = unless_absent(engine.pod(name))?
    {
        return crate::pods::document(engine, &pod).map(Some);
    }
    Ok(None)
}

pub(crate) fn unless_absent<T>(
    found: Result<T, engine::Error>,
) -> Result<Option<T>, engine::Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
