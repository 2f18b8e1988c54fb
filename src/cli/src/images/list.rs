//! `images`.

use anyhow::Context;
use clap::Args;
use engine::image::store::{ListFilter, Pattern};
use engine::image::{Image, Reference};

use super::manage::label;
use super::store;
use crate::out;
use crate::output::{self, Columns, Row};
use values::moments;

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
    /// Show the digests by which registries know them
    #[arg(long)]
    digests: bool,
    /// Show only what matches, as in dangling=true
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
    /// Show only those of this name; * stands for any characters but a slash
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

const HEADINGS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
];

const COLUMNS: Columns = Columns {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    quiet: "{{.ID}}",
    headings: HEADINGS,
};

const WITH_DIGESTS: Columns = Columns {
    table: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    ..COLUMNS
};

/// Docker's word for what is not there.
const NONE: &str = "<none>";

/// `hull images`
pub(crate) fn list(args: ImagesArgs) -> anyhow::Result<u8> {
    let filter = filter(&args.filters, args.name.as_deref())?;
    let now_ns = engine::time::now_ns();
    // A template that asks for digests gets a row for each, as the option does.
    let digests = args.digests || args.format.as_ref().is_some_and(|f| f.contains(".Digest"));
    let mut rows = Vec::new();
    for image in store()?.list(&filter)? {
        let mut names = names(&image, digests);
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
    let columns = if args.digests { WITH_DIGESTS } else { COLUMNS };
    out(&output::listing(
        columns,
        args.format.as_deref(),
        args.quiet,
        &rows,
    )?)?;
    Ok(0)
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

/// What a row says of an image's name.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    repository: String,
    tag: String,
    digest: String,
}

/// A row for each tag, and for each repository that knows the image by its digest alone; one at least.
fn names(image: &Image, digests: bool) -> Vec<Name> {
    let digests_of = |repository: &str| -> Vec<String> {
        let of = image
            .digests
            .iter()
            .filter(|known| repository_of(known) == repository);
        let mut of: Vec<String> = of
            .filter_map(|known| known.digest())
            .map(|digest| digest.to_string())
            .collect();
        if of.is_empty() {
            of.push(NONE.to_owned());
        }
        of.truncate(if digests { of.len() } else { 1 });
        of
    };
    let mut names = Vec::new();
    let mut add = |repository: &str, tag: &str| {
        names.extend(digests_of(repository).into_iter().map(|digest| Name {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            digest,
        }));
    };
    for name in &image.names {
        add(&repository_of(name), name.tag().unwrap_or(NONE));
    }
    let mut untagged: Vec<String> = image.digests.iter().map(repository_of).collect();
    untagged.dedup();
    untagged.retain(|repository| {
        !image
            .names
            .iter()
            .any(|name| repository_of(name) == *repository)
    });
    for repository in untagged {
        add(&repository, NONE);
    }
    if names.is_empty() {
        names.push(Name {
            repository: NONE.to_owned(),
            tag: NONE.to_owned(),
            digest: NONE.to_owned(),
        });
    }
    names
}

/// A name as people write it, without tag and digest.
fn repository_of(name: &Reference) -> String {
    let text = name.to_string();
    let text = text.split('@').next().unwrap_or_default();
    let tag = name.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    text.strip_suffix(tag.as_str()).unwrap_or(text).to_owned()
}

fn row(image: &Image, name: Name, now_ns: u64, whole: bool) -> Row {
    let created_ns = image
        .created_s
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| seconds.saturating_mul(1_000_000_000));
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "N/A".to_owned());
    Row::new([
        ("Repository", name.repository),
        ("Tag", name.tag),
        ("Digest", name.digest),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn image(names: &[&str], digests: &[&str]) -> Image {
        let parse = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        Image {
            id: engine::image::Digest::of(b"x"),
            names: parse(names),
            digests: parse(digests),
            config: Default::default(),
            docker: Default::default(),
            layers: Vec::new(),
            created_s: None,
            stored_s: 0,
            size_bytes: 0,
        }
    }

    fn rows(image: &Image, digests: bool) -> Vec<[String; 3]> {
        let names = names(image, digests).into_iter();
        names
            .map(|name| [name.repository, name.tag, name.digest[..6].to_owned()])
            .collect()
    }

    #[test]
    fn there_is_a_row_for_each_tag_and_each_digest_without_one() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let known = [
            format!("a@sha256:{one}"),
            format!("a@sha256:{two}"),
            format!("localhost:5000/b@sha256:{one}"),
        ];
        let known = known.each_ref().map(String::as_str);
        let row = |words: [&str; 3]| words.map(str::to_owned);
        let image_of_all = image(&["a:1", "c/d:2"], &known);
        assert_eq!(
            rows(&image_of_all, false),
            [
                row(["a", "1", "sha256"]),
                row(["c/d", "2", "<none>"]),
                row(["localhost:5000/b", "<none>", "sha256"]),
            ]
        );
        assert_eq!(rows(&image_of_all, true).len(), 4);
        assert_eq!(rows(&image(&[], &[]), true), [row([NONE, NONE, NONE])]);
    }

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
