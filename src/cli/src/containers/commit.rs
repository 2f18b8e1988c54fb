//! `commit`: an image of a container.

use clap::Args;
use engine::image::Reference;
use engine::{CommitOptions, Engine};

use crate::out;

/// Make an image of a container: its image, and what it has changed
#[derive(Debug, Args)]
#[command(
    after_help = "Instructions for --change: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME,
WORKDIR.

Examples:
  hull commit web shop:2
  hull commit -c 'CMD [\"nginx\"]' -c 'ENV DEBUG=1' -m 'with the new index' web"
)]
pub(crate) struct CommitArgs {
    /// Who made it
    #[arg(short, long, value_name = "AUTHOR")]
    author: Option<String>,
    /// Apply a Dockerfile instruction to the image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A remark for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Freeze the container meanwhile [default: true]
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean)]
    pause: Option<bool>,
    /// The container
    container: String,
    /// The image's name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// `hull commit`.
pub(crate) fn commit(args: CommitArgs) -> anyhow::Result<u8> {
    let name: Option<Reference> = args
        .name
        .as_deref()
        .map(crate::images::reference)
        .transpose()?;
    let options = CommitOptions {
        name,
        author: args.author,
        comment: args.message,
        changes: args.change,
        pause: args.pause.unwrap_or(true),
    };
    let image = Engine::find()?.commit(&args.container, options, &())?;
    out(&format!("{}\n", image.id))?;
    Ok(0)
}
