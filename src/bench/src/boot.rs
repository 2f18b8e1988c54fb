//! `hull bench boot`: how long a container takes to its first byte of output, and a VM to its agent.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use engine::image::Image;
use engine::install::{self, Installation};
use engine::options::Pull;
use engine::prepare::CMDLINE;
use serde_json::Value;

use crate::bundle;
use crate::sample::{Until, spread, time};
use crate::table::{print_table, ratio, row};

/// What runs in each container.
const COMMAND: [&str; 2] = ["echo", "hello"];
/// What the agent says on the console of a machine that has no vsock: its first act fails.
const AGENT_LINE: &str = "hull-agent:";
/// Added to hull's own [`CMDLINE`]: the agent's end is the kernel's panic, and a machine that reboots
/// at once may take the line along.
const KEEP_LINE: &str = "panic=0";
/// QEMU's smallest machine with a console that the kernel has, a serial port for what comes before it, and nothing else.
const QEMU: &str = "-M microvm,accel=kvm,acpi=off,rtc=off,isa-serial=on -cpu host -m 568 -smp 1 -nodefaults \
    -no-user-config -no-reboot -display none -serial null -chardev stdio,id=console -device virtio-serial-device \
    -device virtconsole,chardev=console";

/// What `--boot` says, and the reports of both ways in their order.
const WAYS: [&str; 2] = ["template", "kernel"];

/// Measures and prints.
pub(crate) fn run(runs: u32) -> Result<()> {
    if !crate::is_root() {
        bail!("bench boot compares with crun and runc as root; run it as root");
    }
    let installation = Installation::find()?;
    let root = install::state_root()?;
    let store = engine::images::open_store(&root)?;
    let image = engine::images::resolve(&store, &installation, "demo", Pull::Missing, &())?;
    let folder = tempfile::tempdir()?;
    bundle::make(&image, folder.path(), &COMMAND)?;
    // Once each, so that every program and image is in the page cache, and every template made.
    for network in ["none", "bridge"] {
        hull(&["--network", network])?;
    }
    let mut rows = vec![
        row("hull run (VM, --network none)", runs, || {
            hull(&["--network", "none"])
        })?,
        row("hull run (VM, --network none --boot kernel)", runs, || {
            hull(&["--network", "none", "--boot", "kernel"])
        })?,
        row("hull run (VM, --network bridge)", runs, || {
            hull(&["--network", "bridge"])
        })?,
        row("hull run (--isolation native)", runs, || {
            hull(&["--network", "none", "--isolation", "native"])
        })?,
    ];
    for runtime in ["crun", "runc"] {
        rows.push(row(runtime, runs, || oci(runtime, folder.path()))?);
    }
    print_table(
        "from the command to its container's first byte of output",
        &rows,
    );
    ratio(
        &rows[0],
        &rows[4],
        "hull in a VM from a template, in crun's",
    );
    ratio(
        &rows[1],
        &rows[4],
        "hull in a VM that boots a kernel, in crun's",
    );

    let mut reports = [Vec::new(), Vec::new()];
    let [template, kernel] = &mut reports;
    let rows = [
        row("hull run, to the agent's hello (T4)", runs, || {
            hello(WAYS[0], template)
        })?,
        row("hull run --boot kernel, to the same", runs, || {
            hello(WAYS[1], kernel)
        })?,
        row("QEMU microvm, to the agent's first line", runs, || {
            qemu(&installation)
        })?,
    ];
    print_table(
        "from the command to the agent in the VM: same kernel, same initramfs",
        &rows,
    );
    ratio(&rows[0], &rows[2], "hull from a template, in QEMU's");
    ratio(&rows[1], &rows[2], "hull that boots a kernel, in QEMU's");
    for (way, reports) in WAYS.iter().zip(&reports) {
        print_report(&image, way, reports);
    }
    Ok(())
}

/// Times a run to the agent's hello, and keeps its report.
fn hello(way: &str, reports: &mut Vec<Value>) -> Result<f64> {
    let report = timing(way)?;
    if report["boot"] != way {
        bail!("the VM did not begin as --boot {way} says: {report}");
    }
    let at = report["timeline_ns"]["t4_hello"].as_f64();
    reports.push(report);
    Ok(at.context("the agent's hello was not stamped")? / 1e6)
}

fn hull(options: &[&str]) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").args(options).arg("demo").args(COMMAND);
    Ok(time(&mut command, Until::FirstByte)?.as_secs_f64() * 1e3)
}

fn oci(runtime: &str, bundle: &Path) -> Result<f64> {
    let name = format!("hull-bench-{}", std::process::id());
    let mut command = Command::new(runtime);
    command.arg("run").arg("--bundle").arg(bundle).arg(name);
    Ok(time(&mut command, Until::FirstByte)?.as_secs_f64() * 1e3)
}

/// A run with its stamps and counters.
fn timing(way: &str) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["run", "--timing=json", "--network", "none", "--boot", way])
        .arg("demo")
        .args(COMMAND);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{command:?} printed no timing: {text}"))
}

fn qemu(installation: &Installation) -> Result<f64> {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(QEMU.split_whitespace())
        .args(["-append", &format!("quiet {CMDLINE} {KEEP_LINE}")])
        .arg("-kernel")
        .arg(installation.kernel()?)
        .arg("-initrd")
        .arg(installation.initramfs()?);
    Ok(time(&mut command, Until::Line(AGENT_LINE))?.as_secs_f64() * 1e3)
}

/// Medians of what hull counted itself.
fn print_report(image: &Image, way: &str, reports: &[Value]) {
    let median = |pick: &dyn Fn(&Value) -> f64| {
        let values: Vec<f64> = reports.iter().map(pick).collect();
        spread(&values).median
    };
    let mib = |name: &'static str| {
        median(&|report| report["memory"][name].as_f64().unwrap_or(0.0)) / f64::from(1 << 20)
    };
    let sum = |map: &Value| {
        map.as_object()
            .map_or(0.0, |map| map.values().filter_map(Value::as_f64).sum())
    };
    println!(
        "\nwhat hull counted ({}, --boot {way}, medians)",
        image.display_name()
    );
    println!(
        "{:11.0}  exits",
        median(&|report| report["kvm_stats"]["exits"].as_f64().unwrap_or(0.0))
    );
    println!(
        "{:11.0}  exits to user space",
        median(&|report| sum(&report["user_exits"]))
    );
    println!(
        "{:11.2}  MiB of guest pages touched",
        mib("guest_touched_bytes")
    );
    println!(
        "{:11.2}  MiB of private, dirty pages of the kernel's or the template's file",
        mib("kernel_private_dirty_bytes")
    );
    println!(
        "{:11.2}  MiB of hull-vmm outside guest memory",
        mib("vmm_rss_bytes")
    );
    println!("{:11.2}  MiB of hull-monitor", mib("monitor_rss_bytes"));
}
