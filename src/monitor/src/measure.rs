//! What a sandbox's processes hold in memory, from /proc, as DESIGN.md defines it.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::os::unix::fs::FileExt;

use protocol::monitor::{Measured, Processes};
use protocol::vmm::Report;
use rustix::process::{getpid, getppid};
use sys::resident::{self, Pages};

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

/// The processes of a sandbox, for others to measure.
#[derive(Debug)]
pub(crate) struct Pids {
    vmm: u32,
    monitor: Vec<u32>,
}

impl Pids {
    /// hull-vmm's, and this process with its parent: what a speaker may not ask for once it is confined.
    pub(crate) fn new(vmm: u32) -> Pids {
        let monitor = [Some(getpid()), getppid()].into_iter().flatten();
        let monitor = monitor.map(|pid| pid.as_raw_pid().unsigned_abs());
        Pids {
            vmm,
            monitor: monitor.collect(),
        }
    }

    /// What hull-vmm counts, and where its memory is to be measured.
    pub(crate) fn counters(&self, report: &Report) -> Measured {
        Measured {
            processes: Some(Processes {
                vmm: self.vmm,
                monitor: self.monitor.clone(),
                guest_memory: report.guest_memory.clone(),
            }),
            ..counts(report)
        }
    }
}

fn counts(report: &Report) -> Measured {
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
        if let Some(parent) = getppid() {
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
        let Pages {
            guest,
            guest_own,
            other,
        } = resident::by_mapping(smaps, &report.guest_memory)?;
        let mut monitor_rss_bytes = 0;
        for statm in &self.own {
            monitor_rss_bytes += resident::total(statm)?[0];
        }
        Ok(Measured {
            guest_touched_bytes: guest,
            guest_shared_bytes: guest.saturating_sub(guest_own),
            kernel_private_dirty_bytes: private_bytes(&self.pagemap, &report.kernel_memory)?,
            vmm_rss_bytes: other,
            monitor_rss_bytes,
            ..counts(report)
        })
    }
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
}
