//! `hull pull`, `import`, `images` and `rmi`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use engine::image::{self, PullOptions, Reference, Store};

use crate::progress::Reporter;
use crate::{complain, out, say, table};

/// Fetch an image from a registry
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
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
    /// An OCI layout, a docker-archive or oci-archive, or a tar of a root file system; - is standard input
    #[arg(value_name = "FILE|DIR|-")]
    source: PathBuf,
    /// The name that the image gets
    #[arg(value_name = "IMAGE")]
    name: Option<String>,
}

/// List images
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Print identifiers only
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut identifiers short
    #[arg(long)]
    no_trunc: bool,
}

/// Remove images
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names or identifiers
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Remove every name, and images in use as soon as their containers end
    #[arg(short, long)]
    force: bool,
}

fn store() -> anyhow::Result<Store> {
    let root = engine::install::state_root()?;
    engine::run::sweep(&root)?;
    Ok(engine::images::open_store(&root)?)
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

fn reference(text: &str) -> anyhow::Result<Reference> {
    text.parse()
        .with_context(|| format!("{text:?} is not an image's name"))
}

/// `hull pull`
pub(crate) fn pull(args: PullArgs) -> anyhow::Result<u8> {
    let reference = reference(&args.image)?;
    let options = PullOptions {
        insecure_registries: args.insecure_registry,
        ..PullOptions::default()
    };
    let reporter = Reporter::new();
    let progress: &dyn image::Progress = if args.quiet { &() } else { &reporter };
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
    let images = if args.source.as_os_str() == "-" {
        let mut stdin = std::io::stdin().lock();
        store.import(image::Source::Reader(&mut stdin), name.as_ref(), &reporter)
    } else {
        store.import(image::Source::Path(&args.source), name.as_ref(), &reporter)
    }
    .map_err(explained)?;
    for image in images {
        out(&format!("{}\n", image.display_name()))?;
    }
    Ok(0)
}

/// `hull images`
pub(crate) fn list(args: ImagesArgs) -> anyhow::Result<u8> {
    let mut rows = Vec::new();
    for image in store()?.images()? {
        let id = if args.no_trunc {
            image.id.to_string()
        } else {
            image.id.short()
        };
        if args.quiet {
            out(&format!("{id}\n"))?;
            continue;
        }
        let created = image.created_s.map_or_else(|| "N/A".to_owned(), table::ago);
        let size = table::size(image.size_bytes);
        if image.names.is_empty() {
            rows.push([
                "<none>".into(),
                "<none>".into(),
                id.clone(),
                created.clone(),
                size.clone(),
            ]);
        }
        for name in &image.names {
            let text = name.to_string();
            let tag = name.tag().unwrap_or("<none>");
            let repository = text.strip_suffix(&format!(":{tag}")).unwrap_or(&text);
            rows.push([
                repository.into(),
                tag.into(),
                id.clone(),
                created.clone(),
                size.clone(),
            ]);
        }
    }
    if !args.quiet {
        out(&table::render(
            ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
            &rows,
        ))?;
    }
    Ok(0)
}

/// `hull rmi`: every image is tried; the code tells whether all went.
pub(crate) fn remove(args: RmiArgs) -> anyhow::Result<u8> {
    let store = store()?;
    let mut code = 0;
    for name in &args.images {
        match store.remove(name, args.force) {
            Ok(removed) => {
                for name in &removed.untagged {
                    out(&format!("Untagged: {name}\n"))?;
                }
                if let Some(id) = &removed.deleted {
                    out(&format!("Deleted: {id}\n"))?;
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
