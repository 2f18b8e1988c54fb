//! `volume`: directories of hull's own that outlive containers.

use clap::{Args, Subcommand};
use engine::Engine;
use engine::volumes::{DRIVER, ListedVolume, NewVolume, VolumeFilters};

use crate::containers::each;
use crate::containers::inspect::print_found;
use crate::out;
use crate::output::{self, Columns, Row};
use crate::prune::{agreed, report};
use values::environment;
use values::moments;

/// Volumes: directories that outlive containers
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    Create(CreateArgs),
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    Inspect(InspectArgs),
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    Prune(PruneArgs),
}

/// Make a volume
#[derive(Debug, Args)]
#[command(
    after_help = "With --opt type=none --opt o=bind --opt device=DIR the volume is that directory of this host.

Examples:
  hull volume create data
  hull run -v data:/var/lib/postgresql/data postgres"
)]
pub(crate) struct CreateArgs {
    /// Its driver: local is the only one
    #[arg(short, long, value_name = "DRIVER", default_value = DRIVER)]
    driver: String,
    /// Set a label
    #[arg(long = "label", value_name = "KEY[=VALUE]", value_parser = environment::label)]
    labels: Vec<(String, String)>,
    /// Set an option of the driver
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = environment::label)]
    options: Vec<(String, String)>,
    /// Its name; one is made up otherwise
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

/// List volumes
#[derive(Debug, Args)]
#[command(
    after_help = "Filters: name=PART, label=KEY[=VALUE], dangling=BOOL, driver=DRIVER

Examples:
  hull volume ls --filter dangling=true -q
  hull volume ls --format '{{.Name}}: {{.Mountpoint}}'"
)]
pub(crate) struct LsArgs {
    /// Show those that match, as in dangling=true
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

/// Show everything that is known of volumes
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Volumes
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

/// Remove volumes that no container uses
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Those that are not there are no failure
    #[arg(short, long)]
    force: bool,
    /// Volumes
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

/// Remove the volumes without a name that no container uses
#[derive(Debug, Args)]
#[command(after_help = "Filters: label=KEY[=VALUE], label!=KEY[=VALUE], all=BOOL")]
pub(crate) struct PruneArgs {
    /// Remove those with a name too
    #[arg(short, long)]
    all: bool,
    /// Remove only what matches, as in label=tier=test
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

const COLUMNS: Columns = Columns {
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "{{.Name}}",
    headings: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Group", "GROUP"),
        ("Availability", "AVAILABILITY"),
        ("Status", "STATUS"),
    ],
};

/// `hull volume`.
pub(crate) fn volume(command: VolumeCommand) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    match command {
        VolumeCommand::Create(args) => {
            let volume = engine.volume_create(NewVolume {
                name: args.name.filter(|name| !name.is_empty()),
                driver: Some(args.driver).filter(|driver| !driver.is_empty()),
                labels: args.labels.into_iter().collect(),
                options: args.options.into_iter().collect(),
            })?;
            out(&format!("{}\n", volume.name))?;
            Ok(0)
        }
        VolumeCommand::Ls(args) => ls(&engine, &args),
        VolumeCommand::Inspect(args) => {
            print_found(&args.volumes, args.format.as_deref(), |name| {
                Ok(api::documents::volume::document(
                    &engine,
                    &engine.volume(name)?,
                ))
            })
        }
        VolumeCommand::Rm(args) => {
            each(&args.volumes, |name| engine.volume_remove(name, args.force))
        }
        VolumeCommand::Prune(args) => prune(&engine, &args),
    }
}

fn ls(engine: &Engine, args: &LsArgs) -> anyhow::Result<u8> {
    let mut filters = VolumeFilters::default();
    for (key, value) in &args.filters {
        match key.as_str() {
            "name" => filters.names.push(value.clone()),
            "driver" => filters.drivers.push(value.clone()),
            "label" => filters.labels.push(moments::label(value)),
            "dangling" => {
                let wanted = values::boolean(value);
                filters.dangling =
                    Some(wanted.map_err(|_| anyhow::anyhow!("invalid filter 'dangling={value}'"))?);
            }
            other => anyhow::bail!("invalid filter '{other}'"),
        }
    }
    // Docker looks at the files where a template asks for their size.
    let wants_sizes = args
        .format
        .as_deref()
        .is_some_and(|format| format.contains(".Size"));
    let mut listed = engine.volumes(&filters)?;
    if wants_sizes {
        engine.measure_volumes(&mut listed);
    }
    let rows: Vec<Row> = listed.iter().map(|one| row(engine, one)).collect();
    out(&output::listing(
        COLUMNS,
        args.format.as_deref(),
        args.quiet,
        &rows,
    )?)?;
    Ok(0)
}

/// A row of a listing, here and of `system df -v`.
pub(crate) fn row(engine: &Engine, one: &ListedVolume) -> Row {
    let unknown = || "N/A".to_owned();
    let measured = one.size_bytes.map(output::size);
    let links = measured.as_ref().map(|_| one.users.to_string());
    Row::new([
        ("Availability", unknown()),
        ("Driver", DRIVER.to_owned()),
        ("Group", unknown()),
        ("Links", links.unwrap_or_else(unknown)),
        (
            "Mountpoint",
            engine.mountpoint(&one.volume).display().to_string(),
        ),
        ("Name", one.volume.name.clone()),
        ("Scope", "local".to_owned()),
        ("Size", measured.unwrap_or_else(unknown)),
        ("Status", unknown()),
    ])
    .labelled(&one.volume.labels)
}

fn prune(engine: &Engine, args: &PruneArgs) -> anyhow::Result<u8> {
    let (mut filters, mut all) = (VolumeFilters::default(), args.all);
    for (key, value) in &args.filters {
        match key.as_str() {
            "label" => filters.labels.push(moments::label(value)),
            "label!" => filters.without_labels.push(moments::label(value)),
            "all" => all |= values::boolean(value)?,
            other => anyhow::bail!("invalid filter '{other}'"),
        }
    }
    let which = match all {
        true => "all local volumes",
        false => "anonymous local volumes",
    };
    let warning = format!("This will remove {which} not used by at least one container.");
    if !args.force && !agreed(&warning)? {
        return Ok(0);
    }
    let pruned = engine.prune_volumes(all, &filters)?;
    out(&report(
        &[("Deleted Volumes", pruned.volumes)],
        pruned.freed_bytes,
    ))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> (tempfile::TempDir, Engine) {
        let root = tempfile::tempdir().unwrap();
        let installation = engine::install::Installation::at(root.path());
        let engine = Engine::open(root.path(), installation);
        (root, engine)
    }

    #[test]
    fn the_table_and_the_fields_are_dockers() {
        let (root, engine) = engine();
        let new = NewVolume {
            name: Some("data".into()),
            labels: [("a".into(), "b".into())].into(),
            ..NewVolume::default()
        };
        engine.volume_create(new).unwrap();
        let rows = || {
            let mut listed = engine.volumes(&VolumeFilters::default()).unwrap();
            engine.measure_volumes(&mut listed);
            vec![row(&engine, &listed[0])]
        };
        let listed = |format| output::listing(COLUMNS, format, false, &rows()).unwrap();
        assert_eq!(listed(None), "DRIVER    VOLUME NAME\nlocal     data\n");
        let mountpoint = root.path().join("volumes/data/_data");
        assert_eq!(
            listed(Some(
                "{{.Mountpoint}} {{.Labels}} {{.Links}} {{.Label \"a\"}} {{.Status}}"
            )),
            format!("{} a=b 0 b N/A\n", mountpoint.display())
        );
    }

    #[test]
    fn a_document_has_dockers_members() {
        let (root, engine) = engine();
        let new = NewVolume {
            name: Some("data".into()),
            ..NewVolume::default()
        };
        let volume = engine.volume_create(new).unwrap();
        let document = api::documents::volume::document(&engine, &volume);
        assert_eq!(
            document["Mountpoint"],
            root.path().join("volumes/data/_data").display().to_string()
        );
        assert!(document["Labels"].is_null() && document["Options"].is_null());
        assert_eq!(document["Scope"], "local");
        let created = document["CreatedAt"].as_str().unwrap();
        assert_eq!(created.len(), "2026-11-28T22:19:28Z".len(), "{created}");
    }
}
