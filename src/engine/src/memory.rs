//! Memory that a running VM's processes take of the host.
//!
//! A monitor whose sandbox was not started to be measured has no rights to look into hull-vmm. Root, who has them, sees what
//! is the guest's and what hull-vmm's own. Everyone else sees hull-vmm as a whole: that counts as the guest's, which is
//! nearly all of it.

use std::fs::File;
use std::io::{self, BufReader};

use protocol::monitor::{Measured, Processes};
use sys::resident;

/// Adds the memory to what a monitor has measured without it. Of a process that has ended, there is none.
pub(crate) fn add(measured: &mut Measured) {
    let Some(processes) = measured.processes.take() else {
        return;
    };
    let monitor = processes.monitor.iter();
    measured.monitor_rss_bytes = monitor
        .filter_map(|&pid| total(pid).ok())
        .map(|[all, _]| all)
        .sum();
    if let Ok(pages) = by_mapping(&processes) {
        measured.guest_touched_bytes = pages.guest;
        measured.guest_shared_bytes = pages.guest.saturating_sub(pages.guest_own);
        measured.vmm_rss_bytes = pages.other;
    } else if let Ok([all, of_files]) = total(processes.vmm) {
        measured.guest_touched_bytes = all;
        measured.guest_shared_bytes = of_files;
    }
}

fn by_mapping(processes: &Processes) -> io::Result<resident::Pages> {
    let smaps = File::open(format!("/proc/{}/smaps", processes.vmm))?;
    resident::by_mapping(BufReader::new(smaps), &processes.guest_memory)
}

fn total(pid: u32) -> io::Result<[u64; 2]> {
    resident::total(&File::open(format!("/proc/{pid}/statm"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(vmm: u32, monitor: &[u32]) -> Measured {
        let mut measured = Measured {
            processes: Some(Processes {
                vmm,
                monitor: monitor.to_vec(),
                guest_memory: vec![[0, u64::MAX]],
            }),
            ..Measured::default()
        };
        add(&mut measured);
        measured
    }

    #[test]
    fn the_guests_memory_and_the_monitors_are_told_apart() {
        let own = std::process::id();
        let measured = measured(own, &[own, own]);
        let guest = measured.guest_touched_bytes;
        assert!(guest > measured.guest_shared_bytes && guest > 1 << 16);
        // All of it is in the guest's range.
        assert_eq!(measured.vmm_rss_bytes, 0);
        assert!(measured.monitor_rss_bytes > guest);
    }

    #[test]
    fn processes_that_have_ended_take_none() {
        assert_eq!(measured(u32::MAX, &[u32::MAX]), Measured::default());
    }
}
