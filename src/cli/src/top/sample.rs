//! What the running sandboxes use at one moment.

use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use engine::Engine;
use engine::list::{ListOptions, Listed};
use engine::protocol::agent::Stats;
use engine::protocol::monitor::Measured;

/// A look at all of them.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) sandboxes: Vec<Sandbox>,
}

/// One of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Sandbox {
    pub(super) id: String,
    /// Its container's, or the pod's.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The names of its running containers.
    pub(super) containers: Vec<String>,
    pub(super) image: String,
    pub(super) usage: Usage,
    /// What its processes on the host are like; `None` if they did not say.
    pub(super) measured: Option<Measured>,
}

/// What separates a sandbox's containers from the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Vm,
    Pod,
    Native,
}

/// What the containers of a sandbox use together, as the machine that they are in counts it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu_us: u64,
    pub(super) machine_cpu_us: u64,
    pub(super) processors: u32,
    pub(super) memory_bytes: u64,
    /// The greatest of their limits.
    pub(super) limit_bytes: u64,
    pub(super) processes: u64,
    /// Read and written.
    pub(super) block_bytes: [u64; 2],
    /// Received and sent.
    pub(super) net_bytes: [u64; 2],
}

impl Usage {
    fn add(&mut self, stats: &Stats) {
        let sum = |total: &mut u64, part: u64| *total = total.saturating_add(part);
        sum(&mut self.cpu_us, stats.cpu_us);
        let memory = stats.memory_bytes.saturating_sub(stats.inactive_file_bytes);
        sum(&mut self.memory_bytes, memory);
        sum(&mut self.processes, stats.processes);
        sum(&mut self.block_bytes[0], stats.block_read_bytes);
        sum(&mut self.block_bytes[1], stats.block_written_bytes);
        self.machine_cpu_us = self.machine_cpu_us.max(stats.machine_cpu_us);
        self.processors = self.processors.max(stats.processors);
        self.limit_bytes = self
            .limit_bytes
            .max(stats.memory_limit_bytes.unwrap_or_default());
        // Containers of a pod have one network between them.
        let interfaces = stats.interfaces.values();
        let [received, sent] = interfaces.fold([0_u64; 2], |[received, sent], interface| {
            [
                received.saturating_add(interface.received[0]),
                sent.saturating_add(interface.sent[0]),
            ]
        });
        self.net_bytes = [self.net_bytes[0].max(received), self.net_bytes[1].max(sent)];
    }
}

/// Looks at every sandbox that runs, at all of them at once: each answer comes from another process.
pub(super) fn take(engine: &Engine) -> Result<Sample, engine::Error> {
    let mut members: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    for one in engine.list(&ListOptions::default())? {
        members
            .entry(one.summary.sandbox.clone())
            .or_default()
            .push(one);
    }
    let is_pod =
        |(id, members): (&String, &Vec<Listed>)| members.iter().any(|one| one.summary.id != *id);
    let pods: BTreeMap<String, String> = match members.iter().any(is_pod) {
        true => engine
            .pods()?
            .into_iter()
            .map(|pod| (pod.id, pod.name))
            .collect(),
        false => BTreeMap::new(),
    };
    let sandboxes = thread::scope(|scope| {
        let threads: Vec<_> = members
            .into_iter()
            .map(|(id, members)| {
                let pod = pods.get(&id).cloned();
                scope.spawn(move || look(engine, id, pod, members))
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok().flatten())
            .collect()
    });
    Ok(Sample {
        at: Instant::now(),
        sandboxes,
    })
}

/// `None`: it has ended since.
fn look(engine: &Engine, id: String, pod: Option<String>, members: Vec<Listed>) -> Option<Sandbox> {
    let first = members.first()?;
    let measured = engine.measure(&first.summary.id).ok();
    let mut sandbox = Sandbox {
        name: pod.clone().unwrap_or_else(|| first.summary.name.clone()),
        kind: kind(pod.is_some(), measured.as_ref()),
        image: first.summary.image.clone(),
        id,
        measured,
        ..Sandbox::default()
    };
    for one in members {
        // One that has ended, or is being started, has no usage.
        if let Ok(stats) = engine.stats(&one.summary.id) {
            sandbox.usage.add(&stats);
            sandbox.containers.push(one.summary.name);
        }
    }
    (!sandbox.containers.is_empty()).then_some(sandbox)
}

/// A VM's measurements say how it began; a native container's do not.
fn kind(is_pod: bool, measured: Option<&Measured>) -> Kind {
    match measured {
        _ if is_pod => Kind::Pod,
        Some(measured) if measured.began.is_none() => Kind::Native,
        _ => Kind::Vm,
    }
}

#[cfg(test)]
mod tests {
    use engine::protocol::agent::InterfaceStats;
    use engine::protocol::monitor::Began;

    use super::*;

    #[test]
    fn a_pods_containers_are_added_up_and_its_network_is_counted_once() {
        let stats = Stats {
            cpu_us: 10,
            machine_cpu_us: 100,
            processors: 2,
            memory_bytes: 50,
            inactive_file_bytes: 20,
            memory_limit_bytes: Some(1000),
            processes: 3,
            block_read_bytes: 7,
            interfaces: [(
                "eth0".to_owned(),
                InterfaceStats {
                    received: [5, 1, 0, 0],
                    sent: [6, 1, 0, 0],
                },
            )]
            .into(),
            ..Stats::default()
        };
        let mut usage = Usage::default();
        usage.add(&stats);
        usage.add(&stats);
        let expected = Usage {
            cpu_us: 20,
            machine_cpu_us: 100,
            processors: 2,
            memory_bytes: 60,
            limit_bytes: 1000,
            processes: 6,
            block_bytes: [14, 0],
            net_bytes: [5, 6],
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn a_sandbox_that_began_as_no_vm_is_native() {
        let vm = Measured {
            began: Some(Began::WithKernel),
            ..Measured::default()
        };
        assert_eq!(kind(false, Some(&vm)), Kind::Vm);
        assert_eq!(kind(true, Some(&vm)), Kind::Pod);
        assert_eq!(kind(false, Some(&Measured::default())), Kind::Native);
        assert_eq!(kind(false, None), Kind::Vm);
    }
}
