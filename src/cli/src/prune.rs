//! `container prune` and `system prune`: removing what is not used.

use std::io::{BufRead, Write};

use clap::Args;
use engine::Engine;
use engine::prune::{PruneFilters, Pruned};

use crate::{moments, out, output};

/// Remove all containers that do not run
#[derive(Debug, Args)]
#[command(after_help = "Filters: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]")]
pub(crate) struct PruneArgs {
    /// Remove only what matches, as in until=24h
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

fn filters(texts: &[(String, String)]) -> anyhow::Result<PruneFilters> {
    let mut filters = PruneFilters::default();
    for (name, value) in texts {
        match name.as_str() {
            "until" => filters.until_ns = Some(moments::moment(value)?),
            "label" => filters.labels.push(moments::label(value)),
            "label!" => filters.without_labels.push(moments::label(value)),
            other => anyhow::bail!("invalid filter '{other}'"),
        }
    }
    Ok(filters)
}

/// Whether the user agrees.
fn agreed(warning: &str) -> anyhow::Result<bool> {
    out(&format!(
        "WARNING! {warning}\nAre you sure you want to continue? [y/N] "
    ))?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn report(pruned: &Pruned) -> String {
    let mut text = String::new();
    if !pruned.containers.is_empty() {
        text.push_str("Deleted Containers:\n");
        for id in &pruned.containers {
            text.push_str(&format!("{id}\n"));
        }
        text.push('\n');
    }
    text.push_str(&format!(
        "Total reclaimed space: {}\n",
        output::size(pruned.freed_bytes)
    ));
    text
}

/// `hull container prune`.
pub(crate) fn containers(args: PruneArgs) -> anyhow::Result<u8> {
    prune(&args, "This will remove all stopped containers.")
}

/// `hull system prune`.
pub(crate) fn system(args: PruneArgs) -> anyhow::Result<u8> {
    prune(
        &args,
        "This will remove:\n  - all stopped containers\n  - what ended and killed commands left behind\n",
    )
}

fn prune(args: &PruneArgs, warning: &str) -> anyhow::Result<u8> {
    let filters = filters(&args.filters)?;
    if !args.force && !agreed(warning)? {
        return Ok(0);
    }
    let pruned = Engine::find()?.prune_containers(&filters)?;
    out(&report(&pruned))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_listed_as_docker_lists_it() {
        let pruned = Pruned {
            containers: vec!["a".repeat(64)],
            freed_bytes: 4096,
        };
        let expected = format!(
            "Deleted Containers:\n{}\n\nTotal reclaimed space: 4.1kB\n",
            "a".repeat(64)
        );
        assert_eq!(report(&pruned), expected);
        assert_eq!(report(&Pruned::default()), "Total reclaimed space: 0B\n");
    }

    #[test]
    fn filters_are_a_time_and_labels() {
        let parse = |texts: &[&str]| {
            let texts: Vec<_> = texts
                .iter()
                .map(|text| moments::filter(text).unwrap())
                .collect();
            filters(&texts)
        };
        let filters = parse(&["label=a=b", "label!=c", "until=5"]).unwrap();
        assert_eq!(filters.labels, [("a".to_owned(), Some("b".to_owned()))]);
        assert_eq!(filters.without_labels, [("c".to_owned(), None)]);
        assert_eq!(filters.until_ns, Some(5_000_000_000));
        assert!(parse(&["dangling=true"]).is_err());
    }
}
