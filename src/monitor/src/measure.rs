//! What a sandbox's processes hold in memory, from /proc, as DESIGN.md defines it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::fs::FileExt;

use protocol::monitor::Measured;
use protocol::vmm::Report;

/// Files of /proc, opened while that was allowed. The kernel asks whether one process may look into another when the file
/// is opened, and not again.
#[derive(Debug)]
pub(crate) struct Files {
    /// hull-vmm's.
    smaps: File,
    /// hull-vmm's.
    pagemap: File,
    /// `statm` of the monitor's processes.
    own: Vec<File>,
}

/// What hull-vmm counts, without what its memory takes.
pub(crate) fn counters(report: &Report) -> Measured {
    Measured {
        timeline: report.timeline,
        kvm_stats: report.kvm_stats.clone(),
        user_exits: report.user_exits.clone(),
        ..Measured::default()
    }
}

impl Files {
    /// Opens those of hull-vmm, process `vmm`, which has executed its program, and of this process and its parent, which
    /// together are the monitor.
    pub(crate) fn open(vmm: u32) -> io::Result<Files> {
        let mut own = vec![File::open("/proc/self/statm")?];
        if let Some(parent) = rustix::process::getppid() {
            own.push(File::open(format!("/proc/{parent}/statm"))?);
        }
        Ok(Files {
            smaps: File::open(format!("/proc/{vmm}/smaps"))?,
            pagemap: File::open(format!("/proc/{vmm}/pagemap"))?,
            own,
        })
    }

    /// Adds up what hull-vmm says and what /proc says of it and of the monitor.
    pub(crate) fn measure(&mut self, report: &Report) -> io::Result<Measured> {
        self.smaps.rewind()?;
        // A small buffer: this process's own memory is measured here too.
        let smaps = BufReader::with_capacity(1024, &self.smaps);
        let rss = sum(smaps, &report.guest_memory)?;
        let mut monitor_rss_bytes = 0;
        for statm in &self.own {
            monitor_rss_bytes += rss_of(statm)?;
        }
        Ok(Measured {
            guest_touched_bytes: rss.guest,
            guest_shared_bytes: rss.guest.saturating_sub(rss.guest_own),
            kernel_private_dirty_bytes: private_bytes(&self.pagemap, &report.kernel_memory)?,
            vmm_rss_bytes: rss.other,
            monitor_rss_bytes,
            ..counters(report)
        })
    }
}

fn rss_of(statm: &File) -> io::Result<u64> {
    // Seven numbers.
    let mut text = [0; 256];
    let len = statm.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..len]);
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
    /// What of it is memory of the process's own, and not pages of a file.
    guest_own: u64,
    other: u64,
}

fn sum(smaps: impl BufRead, guest: &[[u64; 2]]) -> io::Result<Rss> {
    let mut rss = Rss::default();
    let mut in_guest = false;
    for line in smaps.lines() {
        let line = line?;
        let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if let Some(start) = first
            .split_once('-')
            .and_then(|(start, _)| u64::from_str_radix(start, 16).ok())
        {
            in_guest = guest.iter().any(|[from, to]| (*from..*to).contains(&start));
        } else {
            let part = match (first, in_guest) {
                ("Rss:", true) => &mut rss.guest,
                ("Anonymous:", true) => &mut rss.guest_own,
                ("Rss:", false) => &mut rss.other,
                _ => continue,
            };
            let kib: u64 = rest.trim_end_matches("kB").trim().parse().unwrap_or(0);
            *part += kib * 1024;
        }
    }
    Ok(rss)
}

/// What of `ranges` of a process is memory of its own, and not pages of a file (proc_pid_pagemap(5)). The process itself
/// has named them: more than any kernel has are refused, for looking at them takes time.
fn private_bytes(pagemap: &File, ranges: &[[u64; 2]]) -> io::Result<u64> {
    let page = rustix::param::page_size() as u64;
    let mut pages = 0;
    let mut left = MAX_PAGES;
    for [start, end] in ranges {
        let mut numbers = start / page..end.div_ceil(page);
        left = left
            .checked_sub(numbers.end.saturating_sub(numbers.start))
            .ok_or_else(|| io::Error::other("hull-vmm reports more memory than a kernel has"))?;
        // Few at a time: this process's own memory is measured here too.
        let mut entries = [0; 512 * ENTRY_LEN];
        while !numbers.is_empty() {
            let count = (numbers.end - numbers.start).min(512) as usize;
            let entries = &mut entries[..count * ENTRY_LEN];
            pagemap.read_exact_at(entries, numbers.start * ENTRY_LEN as u64)?;
            pages += entries
                .chunks_exact(ENTRY_LEN)
                .filter(|entry| {
                    let entry = u64::from_ne_bytes((*entry).try_into().expect("8 bytes"));
                    entry & PRESENT != 0 && entry & OF_A_FILE == 0
                })
                .count() as u64;
            numbers.start += count as u64;
        }
    }
    Ok(pages * page)
}

/// The most pages of a kernel's image that are looked at: 1 GiB.
const MAX_PAGES: u64 = 1 << 18;
/// Bytes of an entry of a pagemap, and its bits 63 and 61.
const ENTRY_LEN: usize = 8;
const PRESENT: u64 = 1 << 63;
const OF_A_FILE: u64 = 1 << 61;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_told_apart_by_the_reported_ranges() {
        let smaps = "\
1000-3000 rw-p 00000000 00:00 0 
Rss:                   8 kB
Private_Dirty:         8 kB
Anonymous:             8 kB
3000-5000 rw-p 00001000 08:01 77 /vmlinux
Rss:                   6 kB
Anonymous:             2 kB
9000-a000 r-xp 00000000 08:01 78 /hull-vmm
Rss:                   3 kB
";
        let rss = sum(smaps.as_bytes(), &[[0x1000, 0x5000]]).unwrap();
        assert_eq!(
            rss,
            Rss {
                guest: 14 << 10,
                guest_own: 10 << 10,
                other: 3 << 10
            }
        );
    }

    #[test]
    fn pages_of_a_file_are_not_private() {
        let page = rustix::param::page_size();
        let mine = vec![1_u8; 8 * page];
        let start = (mine.as_ptr() as u64).next_multiple_of(page as u64);
        let program = private_bytes as *const () as u64 / page as u64 * page as u64;
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let bytes = |start| private_bytes(&pagemap, &[[start, start + page as u64]]);
        assert_eq!(bytes(start).unwrap(), page as u64);
        assert_eq!(bytes(program).unwrap(), 0);
        assert_eq!(mine[page], 1);
    }

    #[test]
    fn more_memory_than_a_kernel_has_is_not_looked_at() {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let whole = [0, 1 << 47];
        for ranges in [
            &[whole][..],
            &[[0, 1 << 30], [0, 1 << 30]],
            &[[0, u64::MAX]],
        ] {
            let error = private_bytes(&pagemap, ranges).unwrap_err();
            assert!(error.to_string().contains("more memory"), "{error}");
        }
        assert_eq!(private_bytes(&pagemap, &[[9, 1]]).unwrap(), 0);
    }

    #[test]
    fn this_process_has_memory() {
        let statm = File::open("/proc/self/statm").unwrap();
        assert!(rss_of(&statm).unwrap() > 1 << 16);
    }
}
