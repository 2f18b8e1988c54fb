//! Images: `pull`, `import` and `rmi` here, the others below.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use engine::image::store::Deletion;
use engine::image::{self, PullOptions, Reference, Store};

pub(crate) mod archive;
pub(crate) mod list;
pub(crate) mod manage;
pub(crate) mod registry;

use crate::progress::Reporter;
use crate::{complain, out, say};

/// Fetch an image from a registry
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Fetch every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// The platform to take of an image for several, as in linux/amd64 (hull runs only this machine's)
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]")]
    platform: Option<image::Platform>,
    /// The image, as Docker names it
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Speak plain HTTP with this registry (this machine's own need no permission)
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Print nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
}

/// Bring an image from a file or folder
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Apply a Dockerfile instruction to the image of a root file system
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A remark for the history of a root file system's image
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// An OCI layout, a docker-archive or oci-archive, or a tar of a root file system; - is standard input
    #[arg(value_name = "FILE|DIR|-")]
    source: PathBuf,
    /// The name that the image gets
    #[arg(value_name = "IMAGE")]
    name: Option<String>,
}

/// Remove images
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names or identifiers
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Remove every name, and the names of images that containers use
    #[arg(short, long)]
    force: bool,
}

fn store() -> anyhow::Result<Store> {
    let engine = engine::Engine::find()?;
    engine.sweep()?;
    Ok(engine.images()?)
}

/// An error of the image crate, with its advice.
fn explained(error: image::Error) -> anyhow::Error {
    let help = error.help();
    let error = anyhow::Error::from(error);
    match help {
        Some(help) => anyhow::anyhow!("{error:#}; {help}"),
        None => error,
    }
}

pub(crate) fn reference(text: &str) -> anyhow::Result<Reference> {
    text.parse()
        .with_context(|| format!("{text:?} is not an image's name"))
}

/// `hull pull`
pub(crate) fn pull(args: PullArgs) -> anyhow::Result<u8> {
    let reference = reference(&args.image)?;
    let options = PullOptions {
        insecure_registries: args.insecure_registry,
        platform: args.platform,
        ..PullOptions::default()
    };
    let reporter = Reporter::new();
    let progress: &dyn image::Progress = if args.quiet { &() } else { &reporter };
    if args.all_tags {
        let pulled = store()?
            .pull_all(&reference, &options, progress)
            .map_err(explained)?;
        if !args.quiet {
            for one in &pulled {
                out(&format!("Digest: {}\n", one.digest))?;
            }
        }
        out(&format!(
            "{}/{}\n",
            reference.domain(),
            reference.repository()
        ))?;
        return Ok(0);
    }
    let pulled = store()?
        .pull(&reference, &options, progress)
        .map_err(explained)?;
    if !args.quiet {
        let status = match (pulled.up_to_date, pulled.fetched_layers) {
            (true, _) => "Image is up to date for",
            (false, 0) => "Every layer was here already for",
            (false, _) => "Downloaded newer image for",
        };
        out(&format!(
            "Digest: {}\nStatus: {status} {reference}\n",
            pulled.digest
        ))?;
    }
    let (domain, repository) = (reference.domain(), reference.repository());
    let version = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("@{digest}"),
        (None, tag) => format!(":{}", tag.unwrap_or("latest")),
    };
    out(&format!("{domain}/{repository}{version}\n"))?;
    Ok(0)
}

/// `hull import`
pub(crate) fn import(args: ImportArgs) -> anyhow::Result<u8> {
    let name = args.name.as_deref().map(reference).transpose()?;
    let reporter = Reporter::new();
    let store = store()?;
    let mut config = serde_json::json!({});
    image::change::apply(&mut config, &args.change)?;
    let rootfs = image::RootFs {
        config: (!args.change.is_empty()).then_some(&config),
        comment: args.message.as_deref(),
    };
    let mut stdin = std::io::stdin();
    let source = match args.source.as_os_str() == "-" {
        true => image::Source::Reader(&mut stdin),
        false => image::Source::Path(&args.source),
    };
    let images = store
        .import_rootfs_or_images(source, name.as_ref(), rootfs, &reporter)
        .map_err(explained)?;
    for image in images {
        out(&format!("{}\n", image.display_name()))?;
    }
    Ok(0)
}

/// `hull rmi`: every image is tried; the code tells whether all went.
pub(crate) fn remove(args: RmiArgs) -> anyhow::Result<u8> {
    let engine = engine::Engine::find()?;
    engine.sweep()?;
    let mut code = 0;
    for name in &args.images {
        match engine.remove_image(name, args.force) {
            Ok(deleted) => {
                for deletion in deleted.deletions {
                    out(&match deletion {
                        Deletion::Untagged(name) => format!("Untagged: {name}\n"),
                        Deletion::Deleted(id) => format!("Deleted: {id}\n"),
                    })?;
                }
            }
            Err(error) => {
                code = 1;
                let help = error.help();
                complain(&anyhow::Error::from(error));
                if let Some(help) = help {
                    say(&help);
                }
            }
        }
    }
    Ok(code)
}
