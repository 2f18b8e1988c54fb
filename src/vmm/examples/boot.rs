//! Boots a kernel without the engine: `boot HULL_VMM KERNEL INITRAMFS MEMORY_MIB VCPUS DISK|- CMDLINE…`
//!
//! The console goes to standard output; how the VM ended, and its report, to standard error, with a
//! report every BOOT_REPORT_S seconds if that is set.

use std::fs::File;
use std::path::Path;

use protocol::vmm::{DiskConfig, DiskExtent};

#[path = "../tests/fixture/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod fixture;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [
        hull_vmm,
        kernel,
        initramfs,
        memory_mib,
        vcpus,
        disk,
        cmdline @ ..,
    ] = arguments.as_slice()
    else {
        return Err(
            "usage: boot HULL_VMM KERNEL INITRAMFS MEMORY_MIB VCPUS DISK|- CMDLINE…".into(),
        );
    };
    let mut plan = fixture::Plan::new(File::open(kernel)?)?;
    let initramfs = plan.pass(File::open(initramfs)?);
    plan.config.memory_mib = memory_mib.parse()?;
    plan.config.vcpus = vcpus.parse()?;
    plan.kernel().initramfs = Some(initramfs);
    plan.kernel().cmdline = cmdline.join(" ");
    plan.config.rng = true;
    plan.with_vsock();
    if disk != "-" {
        let file = File::open(disk)?;
        let len_bytes = file.metadata()?.len() / 512 * 512;
        let extents = vec![DiskExtent {
            file: plan.pass(file),
            len_bytes,
        }];
        let serial = "layers".to_owned();
        plan.config.disks.push(DiskConfig {
            serial,
            read_only: true,
            extents,
            align_bytes: 512,
            min_len_bytes: 0,
        });
    }
    let begun = sys::clock::monotonic_ns();
    let vm = plan.start(Path::new(hull_vmm), std::io::stdout())?;
    if let Ok(seconds) = std::env::var("BOOT_REPORT_S") {
        let every = std::time::Duration::from_secs(seconds.parse()?);
        let socket = vm.socket()?;
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(every);
                let _ = fixture::send(&socket, &protocol::vmm::ToVmm::Report, &[]);
            }
        });
    }
    let outcome = vm.watch(|report| eprintln!("{:?} {:?}", report.user_exits, report.kvm_stats))?;
    eprintln!(
        "ended: {:?}, process gone after {:?}",
        outcome.end, outcome.exit
    );
    let timeline = outcome.report.timeline;
    for (stage, at) in [
        ("main", timeline.vmm_started),
        ("first KVM_RUN", timeline.first_run),
        ("first virtio", timeline.first_virtio),
        ("agent", timeline.agent_started),
        ("exec", timeline.exec),
    ] {
        if let Some(at) = at {
            eprintln!("{stage}: {} us", at.saturating_sub(begun) / 1000);
        }
    }
    eprintln!("exits to user space: {:?}", outcome.report.user_exits);
    eprintln!("KVM: {:?}", outcome.report.kvm_stats);
    Ok(())
}
