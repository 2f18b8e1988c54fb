//! `images`.

use anyhow::Context;
use clap::Args;
use engine::image::Image;
use engine::image::store::{ListFilter, Pattern};

use super::manage::label;
use super::store;
use crate::output::{self, Columns, Row};
use crate::{moments, out, values};

/// List images
#[derive(Debug, Args)]
#[command(
    after_help = "Filters: reference=PATTERN, dangling=BOOL, label=KEY[=VALUE], label!=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME

Examples:
  hull images 'my/*'
  hull images --filter dangling=true -q"
)]
pub(crate) struct ImagesArgs {
    /// Show all (there are no intermediate ones that would be left out)
    #[arg(short, long)]
    all: bool,
    /// Show those that match, as in dangling=true
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// Print identifiers only
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut identifiers short
    #[arg(long)]
    no_trunc: bool,
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show those of this name; * stands for any characters but a slash
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

const COLUMNS: Columns = Columns {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    quiet: "{{.ID}}",
    headings: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
    ],
};

/// `hull images`
pub(crate) fn list(args: ImagesArgs) -> anyhow::Result<u8> {
    let mut rows = Vec::new();
    let now_ns = engine::time::now_ns();
    let filter = filter(&args.filters, args.reference.as_deref())?;
    for image in store()?.list(&filter)? {
        let mut names: Vec<(String, String)> = image
            .names
            .iter()
            .map(|name| {
                let text = name.to_string();
                let tag = name.tag().unwrap_or("<none>");
                let repository = text.strip_suffix(&format!(":{tag}")).unwrap_or(&text);
                (repository.to_owned(), tag.to_owned())
            })
            .collect();
        if names.is_empty() {
            names.push(("<none>".into(), "<none>".into()));
        }
        // Of an image of several names the identifier is printed once.
        if args.quiet {
            names.truncate(1);
        }
        rows.extend(
            names
                .into_iter()
                .map(|name| row(&image, name, now_ns, args.no_trunc)),
        );
    }
    out(&output::listing(
        COLUMNS,
        args.format.as_deref(),
        args.quiet,
        &rows,
    )?)?;
    Ok(0)
}

fn row(image: &Image, (repository, tag): (String, String), now_ns: u64, whole: bool) -> Row {
    let created_ns = image
        .created_s
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| seconds.saturating_mul(1_000_000_000));
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "N/A".to_owned());
    Row::new([
        ("Repository", repository),
        ("Tag", tag),
        (
            "ID",
            if whole {
                image.id.to_string()
            } else {
                image.id.short()
            },
        ),
        (
            "CreatedSince",
            or_none(created_ns.map(|ns| output::ago(ns, now_ns))),
        ),
        ("CreatedAt", or_none(created_ns.map(output::moment))),
        ("Size", output::size(image.size_bytes)),
    ])
}

/// The filters, with the name behind the options as one of the references.
fn filter(texts: &[(String, String)], name: Option<&str>) -> anyhow::Result<ListFilter> {
    let mut filter = ListFilter::default();
    for (key, value) in texts {
        let invalid = || format!("invalid filter '{key}={value}'");
        match key.as_str() {
            "dangling" => filter.dangling = Some(values::boolean(value).with_context(invalid)?),
            "label" | "label!" => filter.labels.push(label(value, key == "label!")),
            "before" => filter.before = Some(value.clone()),
            "since" => filter.since = Some(value.clone()),
            "until" => {
                let moment_s = moments::moment(value).with_context(invalid)? / 1_000_000_000;
                filter.until_s = i64::try_from(moment_s).ok();
            }
            "reference" => filter.references.push(value.parse().with_context(invalid)?),
            other => anyhow::bail!("invalid filter '{other}'"),
        }
    }
    if let Some(name) = name {
        let pattern: Pattern = name
            .parse()
            .with_context(|| format!("{name:?} cannot be the name of images"))?;
        filter.references.push(pattern);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter_of(texts: &[(&str, &str)]) -> anyhow::Result<ListFilter> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        filter(&texts.iter().map(own).collect::<Vec<_>>(), Some("my/*"))
    }

    #[test]
    fn filters_are_dockers() {
        let filter = filter_of(&[
            ("dangling", "true"),
            ("label", "tier=web"),
            ("before", "demo"),
            ("reference", "*:1"),
        ])
        .unwrap();
        assert_eq!(filter.dangling, Some(true));
        assert_eq!(filter.labels.len(), 1);
        assert_eq!(filter.before.as_deref(), Some("demo"));
        assert_eq!(filter.references.len(), 2);
        for wrong in [("nope", "x"), ("dangling", "x"), ("until", "x")] {
            assert!(filter_of(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
