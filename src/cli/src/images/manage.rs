//! `tag`, `history` and `image prune`.

use clap::Args;
use engine::Engine;
use engine::image::store::{Deletion, HistoryEntry, LabelFilter};

use super::{reference, store};
use crate::output::{self, Columns, Row};
use crate::{out, prune};
use values::moments;

/// Give an image another name
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image, by name or identifier
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The name
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

/// Show how an image came to be
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show sizes and times for people (--human=false shows bytes and dates) [default: true]
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean)]
    human: Option<bool>,
    /// Cut nothing short
    #[arg(long)]
    no_trunc: bool,
    /// Print identifiers only
    #[arg(short, long)]
    quiet: bool,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Remove images that have no name, or that no container uses
#[derive(Debug, Args)]
#[command(after_help = "Filters: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]")]
pub(crate) struct PruneArgs {
    /// Remove all that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Remove only what matches, as in until=24h
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

const HISTORY: Columns = Columns {
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "{{.ID}}",
    headings: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
};

/// `hull tag`
pub(crate) fn tag(args: TagArgs) -> anyhow::Result<u8> {
    let name = reference(&args.name)?;
    let store = store()?;
    match store.find(&args.image)? {
        Some(image) => store.tag(&image, &name)?,
        None => anyhow::bail!("No such image: {}", args.image),
    }
    Ok(0)
}

/// `hull history`
pub(crate) fn history(args: HistoryArgs) -> anyhow::Result<u8> {
    let store = store()?;
    let Some(image) = store.find(&args.image)? else {
        anyhow::bail!("No such image: {}", args.image);
    };
    let now_ns = engine::time::now_ns();
    let human = args.human.unwrap_or(true);
    let steps = store.history(&image)?;
    let rows: Vec<Row> = steps
        .iter()
        .map(|step| history_row(step, now_ns, human, args.no_trunc))
        .collect();
    out(&output::listing(
        HISTORY,
        args.format.as_deref(),
        args.quiet,
        &rows,
    )?)?;
    Ok(0)
}

fn history_row(step: &HistoryEntry, now_ns: u64, human: bool, whole: bool) -> Row {
    /// Characters of the CREATED BY column.
    const COMMAND_LEN: usize = 45;
    let created_ns = step
        .created_s
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| seconds.saturating_mul(1_000_000_000));
    let id = match &step.id {
        None => "<missing>".to_owned(),
        Some(id) if whole => id.to_string(),
        Some(id) => id.short(),
    };
    // A command of several lines is one in the table.
    let command = crate::printable(&step.created_by).replace(['\t', '\n'], " ");
    let since = match human {
        true => created_ns.map(|ns| output::ago(ns, now_ns)),
        false => created_ns.map(engine::time::format),
    };
    Row::new([
        ("ID", id),
        ("CreatedSince", since.unwrap_or_else(|| "N/A".into())),
        (
            "CreatedAt",
            created_ns.map_or_else(String::new, engine::time::format),
        ),
        (
            "CreatedBy",
            if whole {
                command
            } else {
                output::ellipsis(&command, COMMAND_LEN)
            },
        ),
        (
            "Size",
            if human {
                output::size(step.size_bytes)
            } else {
                step.size_bytes.to_string()
            },
        ),
        (
            "Comment",
            crate::printable(&step.comment).replace(['\t', '\n'], " "),
        ),
    ])
}

/// `hull image prune`
pub(crate) fn prune(args: PruneArgs) -> anyhow::Result<u8> {
    let filters = filters(&args.filters)?;
    let warning = match args.all {
        true => "This will remove all images without at least one container associated to them.",
        false => "This will remove all dangling images.",
    };
    if !args.force && !prune::agreed(warning)? {
        return Ok(0);
    }
    let (lines, freed) = prune_images(&Engine::find()?, args.all, filters)?;
    out(&prune::report(&[("Deleted Images", lines)], freed))?;
    Ok(0)
}

/// Which images may go: the time before which they were built, in seconds since 1970, and their labels.
pub(crate) type Filters = (Option<i64>, Vec<LabelFilter>);

pub(crate) fn filters(texts: &[(String, String)]) -> anyhow::Result<Filters> {
    let mut until_s = None;
    let mut labels = Vec::new();
    for (name, value) in texts {
        match name.as_str() {
            "until" => until_s = i64::try_from(moments::moment(value)? / 1_000_000_000).ok(),
            "label" | "label!" => labels.push(label(value, name == "label!")),
            other => anyhow::bail!("invalid filter '{other}'"),
        }
    }
    Ok((until_s, labels))
}

pub(super) fn label(text: &str, negated: bool) -> LabelFilter {
    let (key, value) = moments::label(text);
    LabelFilter {
        key,
        value,
        negated,
    }
}

/// Removes images that nothing uses: lines of what went, and the bytes that it took.
pub(crate) fn prune_images(
    engine: &Engine,
    all: bool,
    (until_s, labels): Filters,
) -> anyhow::Result<(Vec<String>, u64)> {
    let deleted = engine.prune_images(all, until_s, labels)?;
    let lines = deleted.deletions.iter().map(|deletion| match deletion {
        Deletion::Untagged(name) => format!("untagged: {name}"),
        Deletion::Deleted(id) => format!("deleted: {id}"),
    });
    Ok((lines.collect(), deleted.freed_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_shown_as_docker_shows_them() {
        let now_ns = 1_795_904_368_000_000_000;
        let step = HistoryEntry {
            id: None,
            tags: Vec::new(),
            created_s: Some(1_795_904_368 - 3 * 86_400),
            created_by: "/bin/sh -c apt-get update && apt-get install -y\n\tpostgresql".into(),
            comment: String::new(),
            empty_layer: false,
            size_bytes: 48_100_000,
        };
        assert_eq!(
            output::listing(
                HISTORY,
                None,
                false,
                &[history_row(&step, now_ns, true, false)]
            )
            .unwrap(),
            "\
IMAGE       CREATED      CREATED BY                                      SIZE      COMMENT
<missing>   3 days ago   /bin/sh -c apt-get update && apt-get install…   48.1MB    
"
        );
    }
}
