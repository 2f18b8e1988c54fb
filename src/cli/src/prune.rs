//! `container prune` and `system prune`: removing what is not used.

use std::io::{BufRead, Write};

use clap::Args;
use engine::Engine;
use engine::networks::NetworkFilters;
use engine::prune::PruneFilters;
use engine::volumes::{PrunedVolumes, VolumeFilters};

use crate::images::manage;
use crate::{out, output};
use values::moments;

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

/// Remove what is not used: containers that do not run, images without a name, and what killed commands left
#[derive(Debug, Args)]
#[command(after_help = "Filters: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]")]
pub(crate) struct SystemPruneArgs {
    /// Remove all images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Remove only what matches, as in until=24h
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove volumes without a name that no container uses, too
    #[arg(long)]
    volumes: bool,
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
pub(crate) fn agreed(warning: &str) -> anyhow::Result<bool> {
    out(&format!(
        "WARNING! {warning}\nAre you sure you want to continue? [y/N] "
    ))?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What was removed, by kind, and how much that took.
pub(crate) fn report(removed: &[(&str, Vec<String>)], freed_bytes: u64) -> String {
    let mut text = String::new();
    for (heading, lines) in removed.iter().filter(|(_, lines)| !lines.is_empty()) {
        text.push_str(&format!("{heading}:\n{}\n\n", lines.join("\n")));
    }
    text.push_str(&format!(
        "Total reclaimed space: {}\n",
        output::size(freed_bytes)
    ));
    text
}

/// `hull container prune`.
pub(crate) fn containers(args: PruneArgs) -> anyhow::Result<u8> {
    let filters = filters(&args.filters)?;
    if !args.force && !agreed("This will remove all stopped containers.")? {
        return Ok(0);
    }
    let pruned = Engine::find()?.prune_containers(&filters)?;
    out(&report(
        &[("Deleted Containers", pruned.containers)],
        pruned.freed_bytes,
    ))?;
    Ok(0)
}

/// `hull system prune`.
pub(crate) fn system(args: SystemPruneArgs) -> anyhow::Result<u8> {
    let of_containers = filters(&args.filters)?;
    let of_images = manage::filters(&args.filters)?;
    let images = match args.all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    };
    if args.volumes && of_containers.until_ns.is_some() {
        anyhow::bail!("the \"until\" filter is not supported with \"--volumes\"");
    }
    let volumes = match args.volumes {
        true => "  - all anonymous volumes not used by at least one container\n",
        false => "",
    };
    let warning = format!(
        "This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n{volumes}  - {images}\n"
    );
    if !args.force && !agreed(&warning)? {
        return Ok(0);
    }
    let engine = Engine::find()?;
    let pruned = engine.prune_containers(&of_containers)?;
    let volumes = match args.volumes {
        true => engine.prune_volumes(false, &of_volumes(&of_containers))?,
        false => PrunedVolumes::default(),
    };
    let networks = engine.prune_networks(&of_networks(&of_containers))?;
    let (images, freed) = manage::prune_images(&engine, args.all, of_images)?;
    let removed = [
        ("Deleted Containers", pruned.containers),
        ("Deleted Networks", networks),
        ("Deleted Volumes", volumes.volumes),
        ("Deleted Images", images),
    ];
    let freed = freed.saturating_add(volumes.freed_bytes);
    out(&report(&removed, pruned.freed_bytes.saturating_add(freed)))?;
    Ok(0)
}

/// The same filters, of networks.
fn of_networks(filters: &PruneFilters) -> NetworkFilters {
    NetworkFilters {
        labels: filters.labels.clone(),
        without_labels: filters.without_labels.clone(),
        until_ns: filters.until_ns,
        ..NetworkFilters::default()
    }
}

/// The same filters, of volumes.
fn of_volumes(filters: &PruneFilters) -> VolumeFilters {
    VolumeFilters {
        labels: filters.labels.clone(),
        without_labels: filters.without_labels.clone(),
        ..VolumeFilters::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_listed_as_docker_lists_it() {
        let expected = "Deleted Containers:\na\nb\n\nTotal reclaimed space: 4.1kB\n";
        let removed = [
            ("Deleted Containers", vec!["a".into(), "b".into()]),
            ("Deleted Images", vec![]),
        ];
        assert_eq!(report(&removed, 4096), expected);
        assert_eq!(report(&[], 0), "Total reclaimed space: 0B\n");
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
