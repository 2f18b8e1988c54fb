//! Memory that a process has, from /proc/PID/statm and smaps (proc_pid_statm(5), proc_pid_smaps(5)).
//!
//! Anyone may read the first of any process; the second takes the rights of a debugger.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::fs::FileExt;

/// Resident bytes of a process, and those of them that are pages of files, from its statm. Zeros from a file that is not one.
pub fn total(statm: &File) -> io::Result<[u64; 2]> {
    // Seven numbers.
    let mut text = [0; 256];
    let len = statm.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..len]);
    let page = rustix::param::page_size() as u64;
    let mut fields = text.split(' ').skip(1);
    let mut next = || -> u64 {
        fields
            .next()
            .and_then(|field| field.parse().ok())
            .unwrap_or(0)
    };
    Ok([next() * page, next() * page])
}

/// Resident bytes of a process with a guest's memory in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Of the mappings that are the guest's memory.
    pub guest: u64,
    /// What of it is memory of the process's own, and not pages of a file.
    pub guest_own: u64,
    /// Of all other mappings.
    pub other: u64,
}

/// Adds up an smaps, in which the ranges `guest` are the guest's memory.
pub fn by_mapping(smaps: impl BufRead, guest: &[[u64; 2]]) -> io::Result<Pages> {
    let mut pages = Pages::default();
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
                ("Rss:", true) => &mut pages.guest,
                ("Anonymous:", true) => &mut pages.guest_own,
                ("Rss:", false) => &mut pages.other,
                _ => continue,
            };
            let kib: u64 = rest.trim_end_matches("kB").trim().parse().unwrap_or(0);
            *part += kib * 1024;
        }
    }
    Ok(pages)
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
Anonymous:             8 kB
3000-5000 rw-p 00001000 08:01 77 /vmlinux
Rss:                   6 kB
Anonymous:             2 kB
9000-a000 r-xp 00000000 08:01 78 /hull-vmm
Rss:                   3 kB
";
        let pages = by_mapping(smaps.as_bytes(), &[[0x1000, 0x5000]]).unwrap();
        assert_eq!(
            pages,
            Pages {
                guest: 14 << 10,
                guest_own: 10 << 10,
                other: 3 << 10
            }
        );
    }

    #[test]
    fn this_process_has_memory() {
        let [resident, of_files] = total(&File::open("/proc/self/statm").unwrap()).unwrap();
        assert!(resident > of_files && of_files > 1 << 16);
        let other = File::open("/proc/self/comm").unwrap();
        assert_eq!(total(&other).unwrap(), [0, 0]);
    }
}
