//! `pod`: virtual machines that several containers share; and `machine`: the one that is named machine.

use clap::{Args, Subcommand};
use engine::options::{Network, PodOptions};
use engine::pods::Pod;
use engine::prepare::{self, PodInputs};
use engine::size::MilliCpus;
use engine::{Engine, Stop, time};
use serde_json::{Value, json};

use crate::containers::inspect::{self, Type};
use crate::containers::{each, stats};
use crate::out;
use crate::output::{self, Columns, Row};
use crate::run_args::PlaceArgs;
use values::moments;
use values::{OrDefault, environment, or_default, value};

/// Pods: virtual machines that several containers share
#[derive(Debug, Subcommand)]
pub(crate) enum PodCommand {
    Create(CreateArgs),
    /// Start pods, with all containers in them
    Start(Pods),
    Stop(StopArgs),
    Rm(RmArgs),
    #[command(visible_aliases = ["list", "ps"])]
    Ls(LsArgs),
    Inspect(InspectArgs),
    Stats(StatsArgs),
}

/// Make a pod
#[derive(Debug, Args)]
#[command(
    after_help = "Containers are put into it by hull run --isolation pod:NAME. They share its virtual machine and its network;
each has its own files, limits, user and log."
)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    place: PlaceArgs,
    /// Its containers share a PID namespace
    #[arg(long)]
    share_pid: bool,
    /// Set a label
    #[arg(short, long = "label", value_name = "KEY[=VALUE]", value_parser = environment::label)]
    labels: Vec<(String, String)>,
    /// Its name
    name: String,
}

/// What a pod's virtual machine is like.
#[derive(Debug, Args)]
pub(crate) struct Shape {
    /// Memory that its containers may use together, as in 2g
    #[arg(short, long, value_name = "SIZE", value_parser = or_default(values::optional_size))]
    memory: Option<OrDefault<u64>>,
    /// CPUs that they may use together
    #[arg(long, value_name = "N", value_parser = values::cpus)]
    cpus: Option<MilliCpus>,
    /// size=SIZE: how much its containers' writable layers may hold together, 128m to 1t [default: 64g]
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::machine::storage)]
    storage_opt: Option<u64>,
    /// Its network: none, bridge, or the name of one of one's own
    #[arg(long, value_name = "NETWORK", value_parser = or_default(values::machine::network))]
    network: Option<OrDefault<Network>>,
}

impl Shape {
    pub(crate) fn options(&self) -> PodOptions {
        PodOptions {
            memory_bytes: value(self.memory.clone()),
            cpus: self.cpus,
            storage_bytes: self.storage_opt,
            network: value(self.network.clone()),
            ..PodOptions::default()
        }
    }
}

/// Pods of a command that takes nothing else
#[derive(Debug, Args)]
pub(crate) struct Pods {
    /// Pods
    #[arg(value_name = "POD", required = true)]
    pods: Vec<String>,
}

/// Stop pods, with all containers in them
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds that each container has before SIGKILL; -1 is no limit
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// Pods
    #[arg(value_name = "POD", required = true)]
    pods: Vec<String>,
}

/// Remove pods
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Stop them if they run, and remove their containers
    #[arg(short, long)]
    force: bool,
    /// Pods
    #[arg(value_name = "POD", required = true)]
    pods: Vec<String>,
}

/// List pods
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Show pods that match: name=NAME, label=KEY[=VALUE]
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not cut identifiers short
    #[arg(long)]
    no_trunc: bool,
    /// Print identifiers only
    #[arg(short, long)]
    quiet: bool,
}

/// Show everything that is known of pods
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Pods
    #[arg(value_name = "POD", required = true)]
    pods: Vec<String>,
}

/// Show what the containers of a pod use
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Do not cut identifiers short
    #[arg(long)]
    no_trunc: bool,
    /// The pod
    pod: String,
}

const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Name}}\t{{.Status}}\t{{.RunningFor}}\t{{.Containers}}",
    quiet: "{{.ID}}",
    headings: &[
        ("ID", "POD ID"),
        ("Name", "NAME"),
        ("Status", "STATUS"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Containers", "CONTAINERS"),
        ("Labels", "LABELS"),
    ],
};

/// `hull pod`.
pub(crate) fn pod(command: PodCommand) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    match command {
        PodCommand::Create(args) => {
            let options = PodOptions {
                shared_pid: args.share_pid,
                labels: args.labels.into_iter().collect(),
                place: args.place.place(),
                ..args.shape.options()
            };
            let id = create(&engine, &args.name, &options)?;
            out(&format!("{id}\n"))?;
            Ok(0)
        }
        PodCommand::Start(args) => each(&args.pods, |pod| engine.pod_start(pod)),
        PodCommand::Stop(args) => {
            let how = Stop {
                signal: None,
                timeout_s: args.time,
            };
            each(&args.pods, |pod| engine.pod_stop(pod, how).map(drop))
        }
        PodCommand::Rm(args) => each(&args.pods, |pod| engine.pod_remove(pod, args.force)),
        PodCommand::Ls(args) => ls(&engine, &args),
        PodCommand::Inspect(args) => inspect::print_all(
            &args.pods,
            args.format.as_deref(),
            Some(Type::Pod),
            |name| {
                let pod = inspect::unless_absent(engine.pod(name))?;
                pod.map(|pod| document(&engine, &pod)).transpose()
            },
        ),
        PodCommand::Stats(args) => stats_of(&engine, &args),
    }
}

/// Makes a pod, and returns its identifier.
pub(crate) fn create(engine: &Engine, name: &str, options: &PodOptions) -> anyhow::Result<String> {
    let id = engine::id::new_id();
    let network = engine.chosen_network(options.network.as_ref())?;
    let networks: Vec<_> = network.into_iter().collect();
    let inputs = PodInputs {
        networks: &networks,
        options,
        id: &id,
        name,
        created_ns: time::now_ns(),
        root: engine.root(),
        installation: engine.installation(),
    };
    engine.pod_create(&prepare::prepare_pod(&inputs)?)?;
    Ok(id)
}

fn ls(engine: &Engine, args: &LsArgs) -> anyhow::Result<u8> {
    let mut pods = engine.pods()?;
    for (key, text) in &args.filters {
        match key.as_str() {
            "name" => pods.retain(|pod| pod.name.contains(text.as_str())),
            "label" => {
                let (name, wanted) = moments::label(text);
                pods.retain(|pod| {
                    let found = pod.labels.get(&name);
                    found.is_some_and(|found| wanted.as_ref().is_none_or(|wanted| wanted == found))
                });
            }
            other => anyhow::bail!("invalid filter '{other}'"),
        }
    }
    let now_ns = time::now_ns();
    let mut rows = Vec::new();
    for pod in &pods {
        let count = engine.pod_containers(&pod.id)?.len();
        rows.push(row(pod, count, now_ns, args.no_trunc));
    }
    out(&output::listing(
        COLUMNS,
        args.format.as_deref(),
        args.quiet,
        &rows,
    )?)?;
    Ok(0)
}

fn row(pod: &Pod, containers: usize, now_ns: u64, whole: bool) -> Row {
    let id = match whole {
        true => pod.id.clone(),
        false => output::short_id(&pod.id),
    };
    Row::new([
        ("ID", id),
        ("Name", pod.name.clone()),
        ("Status", status(pod).to_owned()),
        ("CreatedAt", output::moment(pod.created_ns)),
        ("RunningFor", output::ago(pod.created_ns, now_ns)),
        ("Containers", containers.to_string()),
    ])
    .labelled(&pod.labels)
}

fn status(pod: &Pod) -> &'static str {
    if pod.running { "running" } else { "stopped" }
}

/// Everything that is known of a pod.
pub(crate) fn document(engine: &Engine, pod: &Pod) -> Result<Value, engine::Error> {
    use engine::protocol::record::Machine;
    let sandbox = engine.pod_sandbox(&pod.id)?;
    let containers = engine.pod_containers(&pod.id)?;
    let containers = containers.iter().map(|one| {
        json!({
            "Id": one.summary.id,
            "Name": format!("/{}", one.summary.name),
            "Status": api::documents::container::state_word(one.state.status),
        })
    });
    let machine = match &sandbox.machine {
        Machine::Vm(vm) => json!({
            "MemoryMiB": vm.memory_mib,
            "CPUs": vm.vcpus,
            "Kernel": vm.kernel.display().to_string(),
        }),
        Machine::Native { .. } => Value::Null,
    };
    Ok(json!({
        "Id": pod.id,
        "Name": pod.name,
        "Created": time::format(pod.created_ns),
        "Status": status(pod),
        "Running": pod.running,
        "SharedPid": pod.shared_pid,
        "NetworkMode": sandbox.networks.first().map_or("none", |endpoint| &*endpoint.network),
        "PortBindings": api::documents::ports::bindings(sandbox.networks.iter().flat_map(|endpoint| &endpoint.publish)),
        "Machine": machine,
        "Labels": pod.labels,
        "Containers": containers.collect::<Vec<_>>(),
    }))
}

fn stats_of(engine: &Engine, args: &StatsArgs) -> anyhow::Result<u8> {
    let id = engine.pod(&args.pod)?.id;
    let look = || {
        let used = engine.pod_stats(&id)?;
        Ok(used
            .into_iter()
            .map(|(one, stats)| (one, Some(stats)))
            .collect())
    };
    stats::show(args.no_stream, args.format.as_deref(), look, args.no_trunc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_listed_with_how_many_containers_they_have() {
        let now_ns = 1_795_904_368_000_000_000;
        let pod = Pod {
            id: "b".repeat(64),
            name: "machine".into(),
            created_ns: now_ns - 7_200_000_000_000,
            labels: Default::default(),
            shared_pid: false,
            running: true,
        };
        assert_eq!(
            output::listing(COLUMNS, None, false, &[row(&pod, 3, now_ns, false)]).unwrap(),
            "\
POD ID         NAME      STATUS    CREATED       CONTAINERS
bbbbbbbbbbbb   machine   running   2 hours ago   3
"
        );
    }
}
