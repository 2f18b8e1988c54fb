//! What `--timing` prints.

use engine::protocol::monitor::{Began, Measured};
use engine::protocol::timeline::{Nanos, Timeline};
use serde_json::json;

/// What `--timing` prints.
#[derive(Debug)]
pub(crate) struct Timing {
    /// T0 to T6.
    pub(crate) timeline: Timeline,
    /// At the container's end.
    pub(crate) at_end: Measured,
    /// Two seconds after its first output, if it ran so long.
    pub(crate) idle: Option<Measured>,
}

/// The stages of DESIGN.md, "Time".
fn stages(timeline: &Timeline) -> [(&'static str, &'static str, Option<Nanos>); 9] {
    [
        ("T0", "hull starts", timeline.hull_started),
        ("", "a template was made first", timeline.template_made),
        ("", "hull-vmm is in main", timeline.vmm_started),
        ("T1", "first KVM_RUN", timeline.first_run),
        ("T2", "first virtio status write", timeline.first_virtio),
        ("T3", "the agent is PID 1", timeline.agent_started),
        ("T4", "the agent's hello is here", timeline.hello),
        ("T5", "the process is executed", timeline.exec),
        ("T6", "its first byte of output", timeline.first_output),
    ]
}

/// For people.
pub(crate) fn text(timing: &Timing) -> String {
    let start = timing.timeline.hull_started.unwrap_or(0);
    let mut text = String::from("\n      at ms  +ms\n");
    let mut last = start;
    for (number, stage, at) in stages(&timing.timeline) {
        if number.is_empty() && at.is_none() {
            continue;
        }
        match at {
            Some(at) => {
                let since = |from: Nanos| at.saturating_sub(from) as f64 / 1e6;
                text.push_str(&format!(
                    "{number:<2} {:>8.1} {:>7.1}  {stage}\n",
                    since(start),
                    since(last)
                ));
                last = at;
            }
            None => text.push_str(&format!("{number:<2} {:>8} {:>7}  {stage}\n", "-", "-")),
        }
    }
    text.push_str(match timing.at_end.began {
        Some(Began::FromTemplate) => {
            "the VM began from a template: there is no T2, and the agent is PID 1 from T1 on\n"
        }
        Some(Began::WithKernel) => "the VM booted a kernel\n",
        None => "",
    });
    let (memory, when) = match &timing.idle {
        Some(idle) => (idle, "two seconds after the first output"),
        None => (&timing.at_end, "at the end"),
    };
    text.push_str(&format!("\nmemory {when}\n"));
    let mut line = |name: &str, bytes: u64| {
        text.push_str(&format!(
            "  {:>8.2} MiB  {name}\n",
            bytes as f64 / f64::from(1 << 20)
        ));
    };
    line("guest pages touched", memory.guest_touched_bytes);
    line(
        "pages of the kernel's or the template's file that are private and dirty",
        memory.kernel_private_dirty_bytes,
    );
    line("hull-vmm outside guest memory", memory.vmm_rss_bytes);
    line("monitor", memory.monitor_rss_bytes);
    text.push_str("\nexits by kind (KVM's statistics)\n");
    for (kind, count) in &timing.at_end.kvm_stats {
        text.push_str(&format!("  {count:>8}  {kind}\n"));
    }
    text.push_str("\nexits to user space\n");
    for (kind, count) in &timing.at_end.user_exits {
        text.push_str(&format!("  {count:>8}  {kind}\n"));
    }
    text
}

/// For machines: one line. Times in nanoseconds since T0, sizes in bytes.
pub(crate) fn json(timing: &Timing) -> String {
    let start = timing.timeline.hull_started.unwrap_or(0);
    let since = |at: Option<Nanos>| at.map(|at| at.saturating_sub(start));
    let timeline = &timing.timeline;
    let memory = |measured: &Measured| {
        json!({
            "guest_touched_bytes": measured.guest_touched_bytes,
            "kernel_private_dirty_bytes": measured.kernel_private_dirty_bytes,
            "vmm_rss_bytes": measured.vmm_rss_bytes,
            "monitor_rss_bytes": measured.monitor_rss_bytes,
        })
    };
    json!({
        "boot": timing.at_end.began.map(|began| match began {
            Began::FromTemplate => "template",
            Began::WithKernel => "kernel",
        }),
        "timeline_ns": {
            "t0_hull_started": 0,
            "template_made": since(timeline.template_made),
            "vmm_started": since(timeline.vmm_started),
            "t1_first_run": since(timeline.first_run),
            "t2_first_virtio": since(timeline.first_virtio),
            "t3_agent_started": since(timeline.agent_started),
            "t4_hello": since(timeline.hello),
            "t5_exec": since(timeline.exec),
            "t6_first_output": since(timeline.first_output),
        },
        "memory": memory(&timing.at_end),
        "memory_idle": timing.idle.as_ref().map(memory),
        "kvm_stats": timing.at_end.kvm_stats,
        "user_exits": timing.at_end.user_exits,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_the_vm_began_is_said() {
        let timing = |began, template_made| Timing {
            timeline: Timeline {
                hull_started: Some(1_000_000),
                template_made,
                ..Timeline::default()
            },
            at_end: Measured {
                began,
                ..Measured::default()
            },
            idle: None,
        };
        let made = timing(Some(Began::FromTemplate), Some(901_000_000));
        assert!(text(&made).contains("   900.0   900.0  a template was made first\n"));
        assert!(text(&made).contains("began from a template"));
        assert!(json(&made).contains(r#""boot":"template""#));
        let booted = timing(Some(Began::WithKernel), None);
        assert!(!text(&booted).contains("a template"));
        assert!(json(&booted).contains(r#""boot":"kernel""#));
        assert!(json(&timing(None, None)).contains(r#""boot":null"#));
    }

    #[test]
    fn stages_that_were_not_reached_are_shown_as_such() {
        let timeline = Timeline {
            hull_started: Some(1_000_000),
            hello: Some(3_500_000),
            ..Timeline::default()
        };
        let timing = Timing {
            timeline,
            at_end: Measured::default(),
            idle: None,
        };
        let text = text(&timing);
        assert!(
            text.contains("T4      2.5     2.5  the agent's hello is here"),
            "{text}"
        );
        assert!(
            text.contains("T6        -       -  its first byte of output"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&json(&timing)).unwrap();
        assert_eq!(json["timeline_ns"]["t4_hello"], 2_500_000);
        assert!(json["timeline_ns"]["t6_first_output"].is_null());
    }
}
