//! What containers use: once, or each second until the client goes.

use std::time::Duration;

use engine::protocol::agent::Stats;
use engine::{Engine, Kind, time};
use rustix::event::{PollFd, PollFlags};
use serde_json::{Map, Value, json};

use crate::call::{Answer, Call, JSON, json, parts};
use crate::error::Failure;
use crate::stream::wait as wait_for;

/// Between two looks at what a container uses.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn stats(call: Call) -> Answer {
    let engine = call.engine;
    let container = engine.container(&call.target)?;
    let (id, name) = (container.config.id, container.config.name);
    let stream = call.query.flag_or("stream", true);
    let one_shot = call.query.flag("one-shot");
    if !stream {
        let before = match one_shot {
            true => None,
            false => used(engine, &id)?,
        };
        if !one_shot && before.is_some() {
            std::thread::sleep(STATS_INTERVAL);
        }
        let now = used(engine, &id)?;
        return json(
            200,
            &stats_document(&id, &name, before.as_ref(), now.as_ref()),
        );
    }
    let mut before = None;
    parts(JSON, move |sink| {
        loop {
            let now = match used(engine, &id) {
                Ok(now) => now,
                Err(_) => return,
            };
            if sink
                .line(&stats_document(&id, &name, before.as_ref(), now.as_ref()))
                .is_err()
            {
                return;
            }
            before = now;
            let mut fds = [PollFd::new(&sink.there, PollFlags::IN)];
            if wait_for(&mut fds, Some(STATS_INTERVAL)).is_err() || !fds[0].revents().is_empty() {
                return;
            }
        }
    })
}

/// `None`: it does not run.
fn used(engine: &Engine, id: &str) -> Result<Option<(u64, Stats)>, Failure> {
    match engine.stats(id) {
        Ok(stats) => Ok(Some((time::now_ns(), stats))),
        Err(error) if error.kind() == Kind::Conflict => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn stats_document(
    id: &str,
    name: &str,
    before: Option<&(u64, Stats)>,
    now: Option<&(u64, Stats)>,
) -> Value {
    let empty = (0, Stats::default());
    let (read_ns, stats) = now.unwrap_or(&empty);
    let (before_ns, earlier) = before.unwrap_or(&empty);
    let mut memory: Map<String, Value> = stats
        .memory
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    memory.insert("inactive_file".into(), json!(stats.inactive_file_bytes));
    let interfaces = stats.interfaces.iter().map(|(name, counters)| {
        let ([rx, rx_packets, rx_errors, rx_dropped], [tx, tx_packets, tx_errors, tx_dropped]) = (counters.received, counters.sent);
        let document = json!({
            "rx_bytes": rx, "rx_packets": rx_packets, "rx_errors": rx_errors, "rx_dropped": rx_dropped,
            "tx_bytes": tx, "tx_packets": tx_packets, "tx_errors": tx_errors, "tx_dropped": tx_dropped,
        });
        (name.clone(), document)
    });
    let block = |operation: &str, bytes: u64| json!({"major": 0, "minor": 0, "op": operation, "value": bytes});
    json!({
        "read": time::format(*read_ns),
        "preread": time::format(*before_ns),
        "name": format!("/{name}"),
        "id": id,
        "num_procs": 0,
        "pids_stats": {"current": stats.processes, "limit": stats.processes_limit.unwrap_or(0)},
        "cpu_stats": cpu_document(stats),
        "precpu_stats": cpu_document(earlier),
        "memory_stats": match now {
            None => json!({}),
            Some(_) => json!({"usage": stats.memory_bytes, "stats": memory, "limit": stats.memory_limit_bytes.unwrap_or(0)}),
        },
        "blkio_stats": {
            "io_service_bytes_recursive": [block("read", stats.block_read_bytes), block("write", stats.block_written_bytes)],
            "io_serviced_recursive": null, "io_queue_recursive": null, "io_service_time_recursive": null,
            "io_wait_time_recursive": null, "io_merged_recursive": null, "io_time_recursive": null,
            "sectors_recursive": null,
        },
        "storage_stats": {},
        "networks": Map::from_iter(interfaces),
    })
}

fn cpu_document(stats: &Stats) -> Value {
    const NANOS_PER_US: u64 = 1000;
    let ns = |us: u64| us.saturating_mul(NANOS_PER_US);
    let [periods, throttled, throttled_us] = stats.cpu_throttling;
    json!({
        "cpu_usage": {
            "total_usage": ns(stats.cpu_us),
            "usage_in_kernelmode": ns(stats.cpu_system_us),
            "usage_in_usermode": ns(stats.cpu_user_us),
        },
        "system_cpu_usage": ns(stats.machine_cpu_us),
        "online_cpus": stats.processors,
        "throttling_data": {"periods": periods, "throttled_periods": throttled, "throttled_time": ns(throttled_us)},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_22_stats_of_what_does_not_run_are_zeros() {
        let document = stats_document("ab", "web", None, None);
        assert_eq!(document["id"], "ab");
        assert_eq!(document["memory_stats"], json!({}));
        assert_eq!(document["cpu_stats"]["online_cpus"], 0);
    }
}
