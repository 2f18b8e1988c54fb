//! `update`: other limits and another restart policy.

use clap::Args;
use engine::Engine;
use engine::options::{CpuSet, Swap};
use engine::protocol::record::RestartPolicy;
use engine::size::MilliCpus;
use engine::update::Update;
use serde_json::{Map, Value, json};

use super::each;
use values::{OrDefault, lifecycle, or_default, value};

/// Change limits and restart policies of containers, at once if they run
#[derive(Debug, Args)]
#[command(
    after_help = "A VM keeps the memory and the processors that it was made with: limits are of the container inside it, and
more than the VM has gives it no more."
)]
pub(crate) struct UpdateArgs {
    /// Weight against the other containers of its machine
    #[arg(short, long, value_name = "SHARES", value_parser = or_default(values::count))]
    cpu_shares: Option<OrDefault<u64>>,
    /// Period of --cpu-quota in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = or_default(values::count))]
    cpu_period: Option<OrDefault<u64>>,
    /// CPU time in each period in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = or_default(values::count))]
    cpu_quota: Option<OrDefault<u64>>,
    /// Number of CPUs, as in 1.5
    #[arg(long, value_name = "N", value_parser = values::cpus, conflicts_with_all = ["cpu_quota", "cpu_period"])]
    cpus: Option<MilliCpus>,
    /// CPUs that it may run on, as in 0-3,5
    #[arg(long, value_name = "SET", value_parser = or_default(values::cpu_set))]
    cpuset_cpus: Option<OrDefault<CpuSet>>,
    /// Memory nodes that it may use
    #[arg(long, value_name = "SET", value_parser = or_default(values::cpu_set))]
    cpuset_mems: Option<OrDefault<CpuSet>>,
    /// Memory limit, as in 512m
    #[arg(short, long, value_name = "SIZE", value_parser = or_default(values::optional_size))]
    memory: Option<OrDefault<u64>>,
    /// Memory that reclaim leaves alone
    #[arg(long, value_name = "SIZE", value_parser = or_default(values::optional_size))]
    memory_reservation: Option<OrDefault<u64>>,
    /// Memory and swap together; -1 is no limit
    #[arg(long, value_name = "SIZE", value_parser = or_default(values::swap))]
    memory_swap: Option<OrDefault<Swap>>,
    /// Most processes and threads; -1 is no limit
    #[arg(long, value_name = "N", value_parser = or_default(values::limit))]
    pids_limit: Option<OrDefault<u64>>,
    /// no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = lifecycle::restart)]
    restart: Option<RestartPolicy>,
    /// Containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Of cpu.max, as the engine has it.
const CPU_PERIOD_US: u64 = 100_000;

impl UpdateArgs {
    /// The OCI `linux.resources` document of what changes; `None` if nothing does.
    fn resources(&self) -> anyhow::Result<Option<Value>> {
        let mut memory = Map::new();
        if let Some(bytes) = value(self.memory.clone()) {
            engine::size::check_memory(bytes)?;
            memory.insert("limit".into(), json!(bytes));
            // As at creation: without the option there is no swap.
            memory.insert("swap".into(), json!(bytes));
        }
        match value(self.memory_swap.clone()) {
            Some(Swap::Total(bytes)) => drop(memory.insert("swap".into(), json!(bytes))),
            Some(Swap::Unlimited) => drop(memory.insert("swap".into(), json!(-1))),
            None => {}
        }
        if let Some(bytes) = value(self.memory_reservation.clone()) {
            memory.insert("reservation".into(), json!(bytes));
        }
        let mut resources = Map::new();
        let cpu = self.cpu()?;
        for (name, members) in [("memory", memory), ("cpu", cpu)] {
            if !members.is_empty() {
                resources.insert(name.into(), Value::Object(members));
            }
        }
        if let Some(limit) = &self.pids_limit {
            let limit = limit
                .0
                .and_then(|limit| i64::try_from(limit).ok())
                .unwrap_or(-1);
            resources.insert("pids".into(), json!({ "limit": limit }));
        }
        Ok((!resources.is_empty()).then_some(Value::Object(resources)))
    }

    fn cpu(&self) -> anyhow::Result<Map<String, Value>> {
        let mut cpu = Map::new();
        if let Some(cpus) = self.cpus {
            engine::size::check_cpus(cpus)?;
            cpu.insert("period".into(), json!(CPU_PERIOD_US));
            cpu.insert(
                "quota".into(),
                json!(cpus.0.saturating_mul(CPU_PERIOD_US / 1000)),
            );
        }
        let numbers = [
            ("shares", value(self.cpu_shares.clone())),
            ("period", value(self.cpu_period.clone())),
            ("quota", value(self.cpu_quota.clone())),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                cpu.insert(name.into(), json!(number));
            }
        }
        let sets = [
            ("cpus", value(self.cpuset_cpus.clone())),
            ("mems", value(self.cpuset_mems.clone())),
        ];
        for (name, set) in sets {
            if let Some(set) = set {
                cpu.insert(name.into(), json!(set.to_string()));
            }
        }
        Ok(cpu)
    }
}

/// `hull update`.
pub(crate) fn update(args: UpdateArgs) -> anyhow::Result<u8> {
    let resources = args.resources()?;
    if resources.is_none() && args.restart.is_none() {
        anyhow::bail!("you must provide one or more flags when using this command");
    }
    let text = resources.map(|resources| resources.to_string());
    let engine = Engine::find()?;
    each(&args.containers, |container| {
        let resources = text
            .clone()
            .map(serde_json::value::RawValue::from_string)
            .transpose()?;
        engine.update(
            container,
            Update {
                resources,
                restart: args.restart,
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        update: UpdateArgs,
    }

    fn resources(words: &[&str]) -> Option<Value> {
        let words = ["update"]
            .iter()
            .chain(words)
            .chain(&["web"])
            .map(std::ffi::OsString::from);
        let command: Command = crate::grammar::parse(words.collect::<Vec<_>>()).unwrap();
        command.update.resources().unwrap()
    }

    #[test]
    fn only_what_is_named_changes() {
        assert_eq!(resources(&["--restart", "always"]), None);
        assert_eq!(
            resources(&["-m", "256m", "--cpus", "1.5"]),
            Some(json!({
                "memory": {"limit": 268_435_456, "swap": 268_435_456},
                "cpu": {"period": 100_000, "quota": 150_000},
            }))
        );
        assert_eq!(
            resources(&["--pids-limit", "-1"]),
            Some(json!({"pids": {"limit": -1}}))
        );
        assert_eq!(
            resources(&["--cpuset-cpus", "0-1", "--memory-swap", "-1"]),
            Some(json!({"memory": {"swap": -1}, "cpu": {"cpus": "0-1"}}))
        );
    }
}
