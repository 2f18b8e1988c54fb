//! Stands in for the monitor in the jail's tests.
//!
//! - `jailer PROGRAM [no-user-namespace]`, with a control socket as descriptor 3, starts PROGRAM in hull-vmm's jail, prints
//!   its process number, waits for its end and prints that.
//! - `jailer names FOLDER SUBNET ID PROGRAM` stands in for the warden of a sandbox: it joins the internal network `backend`
//!   of these addresses, which is remembered in FOLDER, and has PROGRAM, a hull-net, answer its names; prints the bridge's
//!   name, waits for the end of its input, and leaves the network.
//! - `jailer cost PROGRAM KERNEL COUNT` prints how long it takes from the start of hull-vmm to its first KVM_RUN, with two
//!   disks, a network device (as root), vsock, rng, a console and 256 MiB: medians over COUNT starts, in the jail and
//!   without it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use monitor::{jail, resolver};
use network::{Claim, Home, Network};
use protocol::record::{self, JAIL_VARIABLE, JailPolicy};
use protocol::subnet::Subnet;
use protocol::vmm::{
    Boot, CONTROL_FD, Descriptor, DiskConfig, DiskExtent, FromVmm, Kernel, MAX_PACKET_LEN,
    NetConfig, ToVmm, VmConfig, VsockConfig, WORDS_FD, Wire,
};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::process::{WaitOptions, waitpid};
use sys::spawn::Inherit;

/// Size of each disk of a measured VM.
const DISK_BYTES: u64 = 1 << 20;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["cost", program, kernel, count] => cost(program, kernel, count.parse()?),
        ["names", folder, subnet, id, program] => names(folder, subnet, id, program),
        [program] => start(program, JailPolicy::Full),
        [program, policy] if policy == JAIL_VARIABLE.1 => {
            start(program, JailPolicy::NoUserNamespace)
        }
        _ => Err("usage: jailer PROGRAM [no-user-namespace] | names FOLDER SUBNET ID PROGRAM | cost PROGRAM KERNEL COUNT".into()),
    }
}

fn start(program: &str, policy: JailPolicy) -> Result<(), Failure> {
    let control = sys::spawn::inherited(CONTROL_FD)?;
    let jailed = match jail::spawn(Path::new(program), control, policy, None) {
        Ok(jailed) => jailed,
        Err(error) => {
            println!("refused {}", monitor::chain(&error));
            return Ok(());
        }
    };
    println!("pid {}", jailed.child.pid);
    let status = waitpid(Some(jailed.child.pid), WaitOptions::empty())?.map(|(_, status)| status);
    let words = jail::explain("hull-vmm", jailed.words.as_fd())?.unwrap_or_default();
    println!("ended {status:?}");
    println!("words {words}");
    Ok(())
}

fn names(folder: &str, subnet: &str, id: &str, program: &str) -> Result<(), Failure> {
    let folder = Path::new(folder);
    let subnet: Subnet = subnet.parse()?;
    let definition = record::Network {
        version: record::VERSION,
        id: format!("{:08x}{:056x}", subnet.network.to_bits(), 0),
        name: "backend".to_owned(),
        created_ns: 0,
        subnet,
        gateway: subnet.gateway(),
        ip_range: None,
        internal: true,
        mtu: None,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
    };
    let record = folder.join("record");
    std::fs::write(&record, "")?;
    let network = Network::named(&Home::bridges(folder), &definition, &record);
    let attachment = network.attach(id, &Claim::default())?;
    match resolver::ensure(&network, &definition.name, &[], Some(Path::new(program))) {
        Ok(()) => println!("bridge {}", network.bridge()),
        Err(error) => println!("refused {}", monitor::chain(&error)),
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(attachment.lease.release()?)
}

fn cost(program: &str, kernel: &str, count: usize) -> Result<(), Failure> {
    let (mut plain, mut jailed) = (Vec::new(), Vec::new());
    // In turns, so that what else the machine does meets both.
    for _ in 0..count {
        plain.push(first_run(kernel, |control| {
            let (_, words) = std::io::pipe()?;
            let inherit = Inherit {
                descriptors: &[(control.as_fd(), CONTROL_FD), (words.as_fd(), WORDS_FD)],
                ..Inherit::default()
            };
            let mut child = sys::spawn::spawn(&mut Command::new(program), &inherit)?;
            Ok(Box::new(move || {
                child.wait()?;
                Ok(())
            }))
        })?);
        jailed.push(first_run(kernel, |control| {
            let jailed = jail::spawn(Path::new(program), control, JailPolicy::Full, None)?;
            Ok(Box::new(move || {
                waitpid(Some(jailed.child.pid), WaitOptions::empty())?;
                Ok(())
            }))
        })?);
    }
    for (name, mut times) in [("plain", plain), ("jailed", jailed)] {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100] as f64 / 1e3;
        println!(
            "{name:<7} median {:7.0} us   10% {:7.0} us   90% {:7.0} us   of {count}",
            at(50),
            at(10),
            at(90)
        );
    }
    Ok(())
}

type Wait = Box<dyn FnOnce() -> Result<(), Failure>>;

/// Nanoseconds from the start of hull-vmm by `start` to its first KVM_RUN.
fn first_run(
    kernel: &str,
    start: impl FnOnce(OwnedFd) -> Result<Wait, Failure>,
) -> Result<u64, Failure> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let mut descriptors: Vec<OwnedFd> = vec![kvm.into(), File::open(kernel)?.into()];
    let mut pass = |descriptor: OwnedFd| {
        descriptors.push(descriptor);
        Descriptor(descriptors.len() as u32 - 1)
    };
    let (_console, their_console) = std::io::pipe()?;
    let console = Some(pass(their_console.into()));
    let disks = [("layers", true), ("scratch", false)]
        .into_iter()
        .map(|(serial, read_only)| {
            let file = memfd_create(serial, MemfdFlags::CLOEXEC)?;
            ftruncate(&file, DISK_BYTES)?;
            let extents = vec![DiskExtent {
                file: pass(file),
                len_bytes: DISK_BYTES,
            }];
            Ok(DiskConfig {
                serial: serial.into(),
                read_only,
                extents,
                align_bytes: 512,
                min_len_bytes: 0,
            })
        })
        .collect::<Result<_, Failure>>()?;
    let nets = if rustix::process::geteuid().is_root() {
        let tap = sys::tap::create("hull-start")?;
        vec![NetConfig {
            descriptor: Some(pass(tap)),
            wire: Wire::Plain,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
        }]
    } else {
        Vec::new()
    };
    let (ours, theirs) = sys::packet::pair()?;
    let begun = sys::clock::monotonic_ns();
    let wait = start(theirs)?;
    let config = VmConfig {
        build: protocol::BUILD.to_owned(),
        kvm: Descriptor(0),
        memory_mib: 256,
        vcpus: 1,
        boot: Boot::Kernel(Kernel {
            image: Descriptor(1),
            initramfs: None,
            cmdline: String::new(),
            save_to: None,
        }),
        console,
        disks,
        nets,
        vsock: Some(VsockConfig { guest_cid: 3 }),
        rng: true,
        fs: None,
    };
    let message = serde_json::to_vec(&ToVmm::Start(Box::new(config)))?;
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    sys::packet::send(&ours, &message, &borrowed)?;
    let tell = |message| -> Result<(), Failure> {
        Ok(sys::packet::send(
            &ours,
            &serde_json::to_vec(&message)?,
            &[],
        )?)
    };
    let mut first_run = None;
    let mut buffer = vec![0; MAX_PACKET_LEN];
    loop {
        let packet = sys::packet::receive(&ours, &mut buffer)?;
        match serde_json::from_slice(&buffer[..packet.len])? {
            FromVmm::Running => tell(ToVmm::Report)?,
            FromVmm::Report(report) => {
                first_run = report.timeline.first_run;
                tell(if first_run.is_some() {
                    ToVmm::Stop
                } else {
                    ToVmm::Report
                })?;
            }
            FromVmm::Ended { report, .. } => {
                first_run = first_run.or(report.timeline.first_run);
                break;
            }
            FromVmm::Failed { message } => return Err(message.into()),
            _ => {}
        }
    }
    wait()?;
    Ok(first_run.ok_or("the guest never ran")? - begun)
}
