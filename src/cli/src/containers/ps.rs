//! `ps`: the containers.

use std::collections::BTreeMap;

use clap::Args;
use engine::Engine;
use engine::container::MountSummary;
use engine::list::{Filter, Filters, ListOptions, Listed};
use engine::time;

use super::ports;
use crate::out;
use crate::output::{self, Columns, Row};
use values::moments;

/// List containers
#[derive(Debug, Args)]
#[command(after_help = "Filters (several of one kind are alternatives):
  id, name, label=KEY[=VALUE], status, exited=CODE, ancestor=IMAGE, before, since, health, network, volume,
  isolation, pod

Examples:
  hull ps -a --filter status=exited
  hull ps --format '{{.Names}}: {{.Status}}'
  hull ps --format 'table {{.ID}}\\t{{.Labels}}'")]
pub(crate) struct PsArgs {
    /// Show those that do not run too
    #[arg(short, long)]
    all: bool,
    /// Show those that match, as in status=exited
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the N created last, running or not; -1 is no limit
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    last: Option<i64>,
    /// Show the one created last, running or not
    #[arg(short, long)]
    latest: bool,
    /// Do not cut identifiers and commands short
    #[arg(long)]
    no_trunc: bool,
    /// Print identifiers only
    #[arg(short, long)]
    quiet: bool,
    /// Show how much each takes of the disk
    #[arg(short, long)]
    size: bool,
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
    ("Isolation", "ISOLATION"),
];
const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    quiet: "{{.ID}}",
    headings: HEADINGS,
};
const COLUMNS_WITH_SIZE: Columns = Columns {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    ..COLUMNS
};

/// Filters of their texts.
pub(crate) fn filters(texts: &[(String, String)]) -> Result<Filters, engine::list::FilterError> {
    let parsed: Result<Vec<Filter>, _> = texts
        .iter()
        .map(|(key, value)| Filter::parse(key, value))
        .collect();
    Ok(Filters(parsed?))
}

/// `hull ps`.
pub(crate) fn ps(args: PsArgs) -> anyhow::Result<u8> {
    let last = match (args.latest, args.last) {
        (true, _) => Some(1),
        (false, Some(last)) => usize::try_from(last).ok().filter(|last| *last > 0),
        (false, None) => None,
    };
    let wants_size = args.size
        || args
            .format
            .as_deref()
            .is_some_and(|format| format.contains(".Size"));
    let options = ListOptions {
        all: args.all,
        last,
        sizes: wants_size,
        filters: filters(&args.filters)?,
    };
    let engine = Engine::find()?;
    let listed = engine.list(&options)?;
    let image_sizes = match wants_size {
        true => image_sizes(&engine)?,
        false => BTreeMap::new(),
    };
    let now_ns = time::now_ns();
    let rows: Vec<Row> = listed
        .iter()
        .map(|one| {
            row(
                one,
                now_ns,
                args.no_trunc,
                image_sizes.get(&one.summary.image_id).copied(),
            )
        })
        .collect();
    let columns = if args.size {
        COLUMNS_WITH_SIZE
    } else {
        COLUMNS
    };
    out(&output::listing(
        columns,
        args.format.as_deref(),
        args.quiet,
        &rows,
    )?)?;
    Ok(0)
}

fn image_sizes(engine: &Engine) -> Result<BTreeMap<String, u64>, engine::Error> {
    let images = engine
        .images()?
        .images()
        .map_err(engine::images::Error::from)?;
    Ok(images
        .into_iter()
        .map(|image| (image.id.to_string(), image.size_bytes))
        .collect())
}

/// A container as a row.
pub(crate) fn row(one: &Listed, now_ns: u64, whole: bool, image_bytes: Option<u64>) -> Row {
    /// Characters of the COMMAND column, without its quotes.
    const COMMAND_LEN: usize = 20;
    let summary = &one.summary;
    let cut = |text: &str| match whole {
        true => text.to_owned(),
        false => output::short_id(text),
    };
    let command = match whole {
        true => summary.command.clone(),
        false => output::ellipsis(&summary.command, COMMAND_LEN),
    };
    let image = match summary.image.starts_with("sha256:") {
        true => cut(&summary.image),
        false => summary.image.clone(),
    };
    let volumes = summary.mounts.iter().filter(|mount| mount.volume.is_some());
    Row::new([
        ("ID", cut(&summary.id)),
        ("Image", image),
        ("Command", output::quoted(&command)),
        ("CreatedAt", output::moment(summary.created_ns)),
        ("RunningFor", output::ago(summary.created_ns, now_ns)),
        (
            "State",
            api::documents::container::state_word(one.state.status).to_owned(),
        ),
        ("Status", one.status_text(now_ns)),
        ("Ports", ports(one)),
        ("Names", summary.name.clone()),
        ("Size", size_text(one.size_bytes, image_bytes)),
        ("Mounts", mounts(&summary.mounts, whole)),
        ("LocalVolumes", volumes.count().to_string()),
        ("Networks", summary.networks().join(",")),
        ("Platform", "linux".to_owned()),
    ])
    .labelled(&summary.labels)
}

/// Of a container that does not run, nothing is reached.
fn ports(one: &Listed) -> String {
    match one.state.status.is_alive() {
        true => ports::column(&one.summary.exposed_ports, &one.state.ports),
        false => String::new(),
    }
}

/// Volumes by their names, other mounts by their paths on the host.
fn mounts(mounts: &[MountSummary], whole: bool) -> String {
    /// Characters of one.
    const MOUNT_LEN: usize = 15;
    let names = mounts.iter().map(|mount| {
        let name = match &mount.volume {
            Some(name) => name.clone(),
            None => mount.path.display().to_string(),
        };
        match whole {
            true => name,
            false => output::ellipsis(&name, MOUNT_LEN),
        }
    });
    names.collect::<Vec<_>>().join(",")
}

fn size_text(own: Option<u64>, image: Option<u64>) -> String {
    let own = own.unwrap_or(0);
    match image {
        Some(image) => format!(
            "{} (virtual {})",
            output::size(own),
            output::size(own + image)
        ),
        None => output::size(own),
    }
}

#[cfg(test)]
mod tests {
    use engine::container::Summary;
    use engine::protocol::record::{State, Status};

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_795_904_368 * SECOND;

    fn containers() -> Vec<Listed> {
        let listed =
            |id: char, name: &str, image: &str, command: &str, age_s: u64, state: State| Listed {
                summary: Summary {
                    id: id.to_string().repeat(64),
                    name: name.into(),
                    image: image.into(),
                    image_id: format!("sha256:{}", "1".repeat(64)),
                    command: command.into(),
                    created_ns: NOW - age_s * SECOND,
                    labels: BTreeMap::from([("tier".into(), "db".into())]),
                    has_network: true,
                    ..Summary::default()
                },
                state,
                health: None,
                size_bytes: Some(4096),
            };
        let running = State {
            status: Status::Running,
            started_ns: NOW - 69 * SECOND,
            ..State::default()
        };
        let exited = State {
            status: Status::Exited,
            exit_code: 137,
            finished_ns: NOW - 5400 * SECOND,
            ..State::default()
        };
        vec![
            listed(
                'a',
                "db",
                "postgres:17",
                "docker-entrypoint.sh postgres -c x=1",
                70,
                running,
            ),
            listed('b', "one_two", "demo", "sh -c \"exit 3\"", 7200, exited),
        ]
    }

    fn list(columns: Columns, format: Option<&str>, whole: bool) -> String {
        let rows: Vec<Row> = containers()
            .iter()
            .map(|one| row(one, NOW, whole, Some(124_900_000)))
            .collect();
        output::listing(columns, format, false, &rows).unwrap()
    }

    #[test]
    fn the_table_is_dockers() {
        assert_eq!(
            list(COLUMNS, None, false),
            "\
CONTAINER ID   IMAGE         COMMAND                  CREATED              STATUS                     PORTS     NAMES
aaaaaaaaaaaa   postgres:17   \"docker-entrypoint.s…\"   About a minute ago   Up About a minute                    db
bbbbbbbbbbbb   demo          \"sh -c \\\"exit 3\\\"\"       2 hours ago          Exited (137) 2 hours ago             one_two
"
        );
    }

    #[test]
    fn mounts_are_volumes_and_paths_cut_to_fifteen_characters() {
        let mut one = containers().remove(0);
        let volume = |name: &str| MountSummary {
            volume: Some(name.into()),
            ..MountSummary::default()
        };
        let bind = MountSummary {
            path: "/srv/a/long/path".into(),
            ..MountSummary::default()
        };
        one.summary.mounts = vec![volume("data"), bind];
        let text = |whole| {
            let rows = [row(&one, NOW, whole, None)];
            let format = Some("{{.Mounts}} {{.LocalVolumes}}");
            output::listing(COLUMNS, format, false, &rows).unwrap()
        };
        assert_eq!(text(false), "data,/srv/a/long/pa… 1\n");
        assert_eq!(text(true), "data,/srv/a/long/path 1\n");
    }

    #[test]
    fn sizes_are_the_containers_own_and_with_the_image() {
        let text = list(COLUMNS_WITH_SIZE, None, false);
        assert!(text.contains("NAMES     SIZE\n"), "{text}");
        assert!(text.contains("db        4.1kB (virtual 125MB)\n"), "{text}");
    }

    #[test]
    fn nothing_is_cut_when_asked_for() {
        let text = list(COLUMNS, None, true);
        assert!(
            text.contains(&"a".repeat(64)) && text.contains("postgres -c x=1"),
            "{text}"
        );
    }

    #[test]
    fn a_template_sees_every_field() {
        assert_eq!(
            list(
                COLUMNS,
                Some("{{.Names}} {{.State}} {{.Label \"tier\"}} {{.CreatedAt}}"),
                false
            ),
            "db running db 2026-11-28 22:18:18 +0000 UTC\none_two exited db 2026-11-28 20:19:28 +0000 UTC\n"
        );
    }
}
