//! `system df`, `info` and `version`.

use clap::Args;
use engine::Engine;
use engine::protocol::BUILD;
use engine::system::{DiskUsage, Info};
use engine::volumes::ListedVolume;
use serde_json::{Value, json};

use crate::containers::ps;
use crate::out;
use crate::output::{self, Columns, Row};

/// Show what takes how much of the disk
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show each image and container
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
}

/// Show what this host and hull's state are
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Show hull's version and build
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

const DF: Columns = Columns {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    quiet: "{{.Type}}",
    headings: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};
const DF_IMAGES: Columns = Columns {
    table: "{{.Name}}\t{{.ID}}\t{{.Size}}\t{{.Containers}}",
    quiet: "{{.ID}}",
    headings: &[
        ("Name", "IMAGE"),
        ("ID", "IMAGE ID"),
        ("Size", "SIZE"),
        ("Containers", "CONTAINERS"),
    ],
};
const DF_CONTAINERS: Columns = Columns {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    quiet: "{{.ID}}",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("Size", "SIZE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
    ],
};

const DF_VOLUMES: Columns = Columns {
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    quiet: "{{.Name}}",
    headings: &[
        ("Name", "VOLUME NAME"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
    ],
};

/// `hull system df`.
pub(crate) fn df(args: DfArgs) -> anyhow::Result<u8> {
    let usage = Engine::find()?.disk_usage()?;
    let text = match args.verbose {
        true => verbose(&usage, engine::time::now_ns())?,
        false => output::listing(DF, args.format.as_deref(), false, &df_rows(&usage))?,
    };
    out(&text)?;
    Ok(0)
}

/// A size, and what part of the whole it is.
fn part(bytes: u64, whole: u64) -> String {
    match bytes.saturating_mul(100).checked_div(whole) {
        Some(percent) => format!("{} ({percent}%)", output::size(bytes)),
        None => output::size(bytes),
    }
}

fn df_rows(usage: &DiskUsage) -> Vec<Row> {
    let used: u64 = usage
        .images
        .iter()
        .filter(|(_, users)| *users > 0)
        .map(|(image, _)| image.size_bytes)
        .sum();
    let size_of = |one: &engine::list::Listed| one.size_bytes.unwrap_or(0);
    let (running, ended): (Vec<_>, Vec<_>) = usage
        .containers
        .iter()
        .partition(|one| one.state.status.is_alive());
    let ended_bytes: u64 = ended.iter().map(|one| size_of(one)).sum();
    let containers_bytes = ended_bytes + running.iter().map(|one| size_of(one)).sum::<u64>();
    let row = |name: &str, total: usize, active: usize, size: u64, reclaimable: String| {
        Row::new([
            ("Type", name.into()),
            ("TotalCount", total.to_string()),
            ("Active", active.to_string()),
            ("Size", output::size(size)),
            ("Reclaimable", reclaimable),
        ])
    };
    let bytes = |one: &ListedVolume| one.size_bytes.unwrap_or(0);
    let volumes_bytes: u64 = usage.volumes.iter().map(bytes).sum();
    let unused = usage.volumes.iter().filter(|one| one.users == 0);
    let unused_bytes: u64 = unused.map(bytes).sum();
    let active_images = usage.images.iter().filter(|(_, users)| *users > 0).count();
    let free = usage.layers_bytes.saturating_sub(used);
    vec![
        row(
            "Images",
            usage.images.len(),
            active_images,
            usage.layers_bytes,
            part(free, usage.layers_bytes),
        ),
        row(
            "Containers",
            usage.containers.len(),
            running.len(),
            containers_bytes,
            part(ended_bytes, containers_bytes),
        ),
        row(
            "Local Volumes",
            usage.volumes.len(),
            usage.volumes.iter().filter(|one| one.users > 0).count(),
            volumes_bytes,
            part(unused_bytes, volumes_bytes),
        ),
        row("Build Cache", 0, 0, 0, output::size(0)),
        row(
            "VM Templates",
            usize::from(usage.templates_bytes > 0),
            0,
            usage.templates_bytes,
            output::size(usage.templates_bytes),
        ),
    ]
}

fn verbose(usage: &DiskUsage, now_ns: u64) -> anyhow::Result<String> {
    let images: Vec<Row> = usage
        .images
        .iter()
        .map(|(image, users)| {
            Row::new([
                ("Name", image.display_name()),
                ("ID", image.id.short()),
                ("Size", output::size(image.size_bytes)),
                ("Containers", users.to_string()),
            ])
        })
        .collect();
    let containers: Vec<Row> = usage
        .containers
        .iter()
        .map(|one| ps::row(one, now_ns, false, None))
        .collect();
    let volumes: Vec<Row> = usage
        .volumes
        .iter()
        .map(|one| {
            Row::new([
                ("Name", one.volume.name.clone()),
                ("Links", one.users.to_string()),
                ("Size", output::size(one.size_bytes.unwrap_or(0))),
            ])
        })
        .collect();
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\n\
         VM templates: {}\n",
        output::listing(DF_IMAGES, None, false, &images)?,
        output::listing(DF_CONTAINERS, None, false, &containers)?,
        output::listing(DF_VOLUMES, None, false, &volumes)?,
        output::size(usage.templates_bytes),
    ))
}

/// `hull info`.
pub(crate) fn info(args: InfoArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    let document = info_document(
        &engine.info()?,
        &Host::look(),
        &engine.root().display().to_string(),
    );
    let text = match output::document(args.format.as_deref(), &document)? {
        Some(text) => text,
        None => info_text(&document),
    };
    out(&text)?;
    Ok(0)
}

/// What this host is.
struct Host {
    name: String,
    kernel: String,
    system: String,
    architecture: String,
    processors: usize,
    memory_bytes: u64,
}

impl Host {
    fn look() -> Host {
        let uname = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let system = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib = memory.lines().find_map(|line| {
            let number = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
            number.trim().parse::<u64>().ok()
        });
        Host {
            name: text(uname.nodename()),
            kernel: text(uname.release()),
            system: system.unwrap_or("Linux").trim_matches('"').to_owned(),
            architecture: text(uname.machine()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_kib.unwrap_or(0).saturating_mul(1024),
        }
    }
}

fn info_document(info: &Info, host: &Host, root: &str) -> Value {
    json!({
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Pods": info.pods,
        "Driver": "erofs",
        "LoggingDriver": "json-file",
        "CgroupVersion": "2",
        "DefaultRuntime": "hull",
        "KernelVersion": host.kernel,
        "OperatingSystem": host.system,
        "OSType": "linux",
        "Architecture": host.architecture,
        "NCPU": host.processors,
        "MemTotal": host.memory_bytes,
        "Name": host.name,
        "DockerRootDir": root,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "ClientInfo": {"Version": env!("CARGO_PKG_VERSION"), "Build": BUILD},
    })
}

fn info_text(document: &Value) -> String {
    let field = |name: &str| match &document[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let memory = output::binary_size(document["MemTotal"].as_u64().unwrap_or(0));
    let mut text = format!(
        "Client:\n Version:    {}\n\nServer:\n",
        field("ServerVersion")
    );
    for (heading, value) in [
        (" Containers", field("Containers")),
        ("  Running", field("ContainersRunning")),
        ("  Paused", field("ContainersPaused")),
        ("  Stopped", field("ContainersStopped")),
        (" Images", field("Images")),
        (" Pods", field("Pods")),
        (" Server Version", field("ServerVersion")),
        (" Storage Driver", field("Driver")),
        (" Logging Driver", field("LoggingDriver")),
        (" Cgroup Version", field("CgroupVersion")),
        (" Kernel Version", field("KernelVersion")),
        (" Operating System", field("OperatingSystem")),
        (" OSType", field("OSType")),
        (" Architecture", field("Architecture")),
        (" CPUs", field("NCPU")),
        (" Total Memory", memory),
        (" Name", field("Name")),
        (" Hull Root Dir", field("DockerRootDir")),
    ] {
        text.push_str(&format!("{heading}: {value}\n"));
    }
    text
}

/// `hull version`.
pub(crate) fn version(args: VersionArgs) -> anyhow::Result<u8> {
    let document = version_document();
    let text = match output::document(args.format.as_deref(), &document)? {
        Some(text) => text,
        None => version_text(),
    };
    out(&text)?;
    Ok(0)
}

/// Hull has no daemon: its server is the engine that is linked into the command.
fn version_document() -> Value {
    let part = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "GitCommit": BUILD,
        "Os": std::env::consts::OS,
        "Arch": architecture(),
    });
    json!({"Client": part, "Server": part})
}

/// Go's names, as Docker shows them.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn version_text() -> String {
    let (version, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    let arch = architecture();
    format!(
        "Client:\n Version:           {version}\n Git commit:        {BUILD}\n OS/Arch:           {os}/{arch}\n\n\
         Server: hull (no daemon: the engine is part of this command)\n Engine:\n  Version:          {version}\n  \
         Git commit:       {BUILD}\n  OS/Arch:          {os}/{arch}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, users: usize, size_bytes: u64) -> ListedVolume {
        ListedVolume {
            volume: engine::protocol::record::Volume {
                version: 1,
                name: name.into(),
                created_ns: 0,
                labels: Default::default(),
                options: Default::default(),
            },
            users,
            size_bytes: Some(size_bytes),
        }
    }

    #[test]
    fn disk_usage_has_dockers_columns() {
        let usage = DiskUsage {
            images: Vec::new(),
            layers_bytes: 124_900_000,
            containers: Vec::new(),
            volumes: vec![volume("data", 1, 3_000_000), volume("old", 0, 1_000_000)],
            templates_bytes: 0,
        };
        assert_eq!(
            output::listing(DF, None, false, &df_rows(&usage)).unwrap(),
            "\
TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE
Images          0         0         125MB     125MB (100%)
Containers      0         0         0B        0B
Local Volumes   2         1         4MB       1MB (25%)
Build Cache     0         0         0B        0B
VM Templates    0         0         0B        0B
"
        );
    }

    #[test]
    fn a_version_is_found_by_template() {
        let text = output::document(
            Some("{{.Server.Version}} {{.Client.Os}}"),
            &version_document(),
        )
        .unwrap();
        assert_eq!(
            text.unwrap(),
            format!("{} linux\n", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn info_counts_containers_first() {
        let info = Info {
            containers: 3,
            running: 1,
            paused: 0,
            stopped: 2,
            images: 4,
            pods: 0,
        };
        let text = info_text(&info_document(&info, &Host::look(), "/var/lib/hull"));
        assert!(
            text.contains(
                "Server:\n Containers: 3\n  Running: 1\n  Paused: 0\n  Stopped: 2\n Images: 4\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("Hull Root Dir: /var/lib/hull\n"), "{text}");
    }
}
