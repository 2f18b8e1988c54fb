//! What a sandbox's processes hold in memory, from /proc, as DESIGN.md defines it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use protocol::monitor::Measured;
use protocol::vmm::Report;

/// Adds up what hull-vmm says and what /proc says of it (process `vmm`) and of this process.
pub(crate) fn measure(report: &Report, vmm: u32) -> io::Result<Measured> {
    let file = File::open(format!("/proc/{vmm}/smaps"))?;
    // A small buffer: this process's own memory is measured here too.
    let rss = sum(
        BufReader::with_capacity(1024, file),
        &report.guest_memory,
        &report.kernel_memory,
    )?;
    Ok(Measured {
        timeline: report.timeline,
        kvm_stats: report.kvm_stats.clone(),
        user_exits: report.user_exits.clone(),
        guest_touched_bytes: rss.guest,
        kernel_private_dirty_bytes: rss.kernel_private_dirty,
        vmm_rss_bytes: rss.other,
        monitor_rss_bytes: own_rss()?,
    })
}

/// Resident bytes of this process: everything mapped, shared pages of the program included.
pub(crate) fn own_rss() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0);
    Ok(pages * rustix::param::page_size() as u64)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Rss {
    guest: u64,
    kernel_private_dirty: u64,
    other: u64,
}

fn sum(smaps: impl BufRead, guest: &[[u64; 2]], kernel: &[[u64; 2]]) -> io::Result<Rss> {
    let mut rss = Rss::default();
    let (mut in_guest, mut in_kernel) = (false, false);
    for line in smaps.lines() {
        let line = line?;
        let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if let Some(start) = first
            .split_once('-')
            .and_then(|(start, _)| u64::from_str_radix(start, 16).ok())
        {
            let within = |ranges: &[[u64; 2]]| {
                ranges
                    .iter()
                    .any(|[from, to]| (*from..*to).contains(&start))
            };
            in_guest = within(guest);
            in_kernel = within(kernel);
            continue;
        }
        let kib = || {
            rest.trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .unwrap_or(0)
                * 1024
        };
        match first {
            "Rss:" if in_guest || in_kernel => rss.guest += kib(),
            "Rss:" => rss.other += kib(),
            "Private_Dirty:" if in_kernel => rss.kernel_private_dirty += kib(),
            _ => {}
        }
    }
    Ok(rss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_told_apart_by_the_reported_ranges() {
        let smaps = "\
1000-3000 rw-p 00000000 00:00 0 
Rss:                   8 kB
Private_Dirty:         8 kB
3000-5000 rw-p 00001000 08:01 77 /vmlinux
Rss:                   6 kB
Private_Dirty:         4 kB
9000-a000 r-xp 00000000 08:01 78 /hull-vmm
Rss:                   3 kB
";
        let rss = sum(smaps.as_bytes(), &[[0x1000, 0x5000]], &[[0x3000, 0x5000]]).unwrap();
        assert_eq!(
            rss,
            Rss {
                guest: 14 << 10,
                kernel_private_dirty: 4 << 10,
                other: 3 << 10
            }
        );
    }

    #[test]
    fn this_process_has_memory() {
        assert!(own_rss().unwrap() > 1 << 16);
    }
}
