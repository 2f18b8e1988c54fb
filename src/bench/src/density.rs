//! `hull bench density`: what the last of many idle containers costs, beside the first.
//!
//! Containers are started one after another and stay; then as many more at once. Memory is the host's: what became
//! unavailable, by the number of containers, so that the kernel's share counts too.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sample::spread;

/// Starts that are compared, at each end of the row.
const COMPARED: usize = 5;
/// Runs of `hull ps` that are compared.
const LISTINGS: usize = 5;
/// Names of the containers begin so.
const PREFIX: &str = "hull-bench-density";
/// What the processes of a sandbox are called.
const PROGRAMS: [&str; 3] = ["hull-monitor", "hull-vmm", "hull-native"];

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) containers: u32,
    pub(crate) at_once: u32,
    pub(crate) memory_mib: u32,
    pub(crate) native: bool,
}

/// Measures and prints; removes its containers in any case.
pub(crate) fn run(options: Options) -> Result<()> {
    let mut names = Vec::new();
    let measured = measure(options, &mut names);
    let removed = remove(&names);
    measured.and(removed)
}

fn measure(options: Options, names: &mut Vec<String>) -> Result<()> {
    // The image, the template and the caches are there before anything is measured.
    start(options, names)?;
    remove(&names.split_off(0))?;
    let empty_kib = available_kib()?;
    let mut starts_ms = vec![start(options, names)?];
    let one_ms = listing()?;
    while names.len() < options.containers as usize {
        starts_ms.push(start(options, names)?);
    }
    let many_ms = listing()?;
    let used_kib = empty_kib.saturating_sub(available_kib()?);
    let count = starts_ms.len();
    let ends = COMPARED.min(count);
    let (first, last) = (&starts_ms[..ends], &starts_ms[count - ends..]);
    println!("\n{count} idle containers, started one after another");
    println!("  median ms     range ms");
    let mut medians = Vec::new();
    let rows = [
        (format!("the first {ends} starts"), first),
        (format!("the last {ends} starts"), last),
        ("hull ps, with one container".to_owned(), &one_ms),
        (format!("hull ps, with {count}"), &many_ms),
    ];
    for (what, times) in rows {
        let spread = spread(times);
        println!(
            "{:11.1}  {:8.1}-{:<8.1}  {what}",
            spread.median, spread.least, spread.most
        );
        medians.push(spread.median);
    }
    println!(
        "  {:.2}  the last starts, in first ones",
        medians[1] / medians[0]
    );
    println!("  {:.1} ms more for hull ps", medians[3] - medians[2]);
    println!(
        "  {:.2} MiB of the host's memory for each",
        used_kib as f64 / 1024.0 / count as f64
    );
    print_processes()?;
    if options.at_once > 0 {
        at_once(options, names, &starts_ms)?;
    }
    Ok(())
}

/// Starts some more at the same time. One lock for all would make each wait for the others.
fn at_once(options: Options, names: &mut Vec<String>, alone_ms: &[f64]) -> Result<()> {
    let count = options.at_once as usize;
    let begin = Instant::now();
    let mut children: Vec<Child> = (0..count)
        .map(|_| spawn(options, names))
        .collect::<Result<_>>()?;
    for child in &mut children {
        if !child.wait()?.success() {
            bail!("a container of {count} at once did not start");
        }
    }
    let together_ms = begin.elapsed().as_secs_f64() * 1e3;
    let alone_ms = spread(alone_ms).median * count as f64;
    println!("\n{count} starts at once");
    println!("{together_ms:11.1}  ms until the last has started");
    println!("{alone_ms:11.1}  ms one after another");
    Ok(())
}

/// Starts a container, and says how long that took, in ms.
fn start(options: Options, names: &mut Vec<String>) -> Result<f64> {
    let begin = Instant::now();
    if !spawn(options, names)?.wait()?.success() {
        bail!("container {} did not start", names.len());
    }
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

fn spawn(options: Options, names: &mut Vec<String>) -> Result<Child> {
    let name = format!("{PREFIX}-{}-{}", std::process::id(), names.len());
    let mut command = hull()?;
    command.args(["run", "-d", "--network", "none", "--name", &name]);
    match options.native {
        true => command.args(["--isolation", "native"]),
        false => command.args(["-m", &format!("{}m", options.memory_mib)]),
    };
    command
        .args(["demo", "sleep", "1000000"])
        .stdout(Stdio::null());
    names.push(name);
    command.spawn().context("cannot run hull")
}

/// Times of `hull ps`, in ms.
fn listing() -> Result<Vec<f64>> {
    let once = |_| {
        let begin = Instant::now();
        let output = hull()?.arg("ps").output()?;
        if !output.status.success() {
            bail!(
                "hull ps failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    };
    (0..LISTINGS).map(once).collect()
}

fn remove(names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let removed = hull()?
        .args(["rm", "-f"])
        .args(names)
        .stdout(Stdio::null())
        .status()?;
    if !removed.success() {
        bail!("not all containers were removed: see hull ps -a");
    }
    Ok(())
}

fn hull() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// Memory that the host could give, once what is written is on disk and caches are dropped where that is allowed.
fn available_kib() -> Result<u64> {
    // What ended a moment ago is freed a moment later.
    std::thread::sleep(Duration::from_secs(2));
    // Not allowed to everyone: then the caches are part of the noise.
    let _ = fs::write("/proc/sys/vm/drop_caches", "3\n");
    let text = fs::read_to_string("/proc/meminfo")?;
    field(&text, "MemAvailable:").context("/proc/meminfo has no MemAvailable")
}

/// What the processes of all sandboxes hold, by program: an average of each kind.
fn print_processes() -> Result<()> {
    let mut kinds: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
        let program = String::from_utf8_lossy(program);
        let Some(kind) = PROGRAMS.into_iter().find(|kind| program.ends_with(kind)) else {
            continue;
        };
        let Ok(text) = fs::read_to_string(entry.path().join("smaps_rollup")) else {
            continue;
        };
        let (count, pss, dirty) = kinds.entry(kind).or_default();
        *count += 1;
        *pss += field(&text, "Pss:").unwrap_or(0);
        *dirty += field(&text, "Private_Dirty:").unwrap_or(0);
    }
    println!("\n  processes  KiB each: proportional  private and dirty");
    for (kind, (count, pss, dirty)) in kinds {
        println!("{count:11} {:24} {:18}  {kind}", pss / count, dirty / count);
    }
    Ok(())
}

/// A field of a file of /proc, in KiB.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_by_its_whole_name() {
        let text = "Pss:     12 kB\nPss_Dirty:   3 kB\nPrivate_Dirty:  4 kB\n";
        assert_eq!(field(text, "Pss:"), Some(12));
        assert_eq!(field(text, "Private_Dirty:"), Some(4));
        assert_eq!(field(text, "Rss:"), None);
    }
}
