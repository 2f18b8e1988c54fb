//! `hull-agent`: PID 1 of the guest, alone in its initramfs.
//!
//! ```text
//! stamp the boot -> mount -> READY -> connect to the host -> hello -> wake, serve -> write the exit code -> reset
//!                        ^ a VM is saved here, and begins here when it was
//! ```
//!
//! The machine has no power-off: it ends by a code in the control device and a reset, whatever happens here.

#![no_main]

mod guest;
mod machine;

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use agent::{Asleep, End, Surroundings};
use machine::Machine;
use protocol::agent::{CONTROL_PORT, HOST_CID, Hello};
use protocol::frame;
use protocol::timeline::{control, mark};
use sys::vsock;

/// Not Rust's own main: its runtime aborts a program that starts without /dev/null and standard streams.
#[expect(
    unsafe_code,
    reason = "an unmangled symbol could clash with another; this one is the program's entry"
)]
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    guest::open_standard_streams();
    if !rustix::process::getpid().is_init() {
        eprintln!("hull-agent is the first process of hull's guests, and of no use elsewhere");
        return 1;
    }
    let machine = Machine::detect();
    if let Some(machine) = machine {
        machine.mark(mark::AGENT_STARTED);
    }
    std::panic::set_hook(Box::new(move |panic| {
        guest::complain(&panic.to_string());
        end(machine, control::CODE_AGENT_FAILED);
    }));
    let code = match run(machine) {
        Ok(End::Shutdown(code)) => code,
        Ok(End::ControlLost(error)) => {
            if !matches!(error, frame::Error::Closed) {
                guest::complain(&protocol::chain(&error));
            }
            control::CODE_CONTROL_LOST
        }
        Err(error) => {
            guest::complain(&protocol::chain(&*error));
            control::CODE_AGENT_FAILED
        }
    };
    end(machine, code)
}

fn run(machine: Option<Machine>) -> Result<End, Box<dyn std::error::Error>> {
    guest::set_up()?;
    let asleep = Asleep::new(Surroundings {
        dial: Box::new(|port| vsock::connect(HOST_CID, port)),
        run_dir: PathBuf::from("/run"),
        cgroup: PathBuf::from("/sys/fs/cgroup"),
        layer_device: None,
        interface: |it| container::Which::Device(protocol::vmm::card_mac(it.slot)),
        is_own_machine: true,
        open_files: Some(guest::OPEN_FILES),
        wake: guest::waker()?,
        on_exec: Box::new(move || {
            if let Some(machine) = machine {
                machine.mark(mark::EXEC);
            }
        }),
    })?;
    if guest::is_to_be_saved() {
        if let Some(machine) = machine {
            machine.mark(mark::REHEARSAL);
        }
        asleep.rehearse(Path::new("/"))?;
    }
    let release = rustix::system::uname();
    let hello = frame::encode(&Hello {
        build: protocol::BUILD.to_owned(),
        kernel_release: release.release().to_string_lossy().into_owned(),
    })?;
    if let Some(machine) = machine {
        machine.mark(mark::READY);
    }
    // Here a VM that is to be saved has ended, and one that begins from a snapshot begins: what stands below is done in
    // each of them, what stands above in one for all.
    let mut control = File::from(vsock::connect(HOST_CID, CONTROL_PORT)?);
    control.write_all(&hello)?;
    Ok(asleep.serve(OwnedFd::from(control))?)
}

/// Ends the machine: by its control device, or on another's machine by the kernel.
fn end(machine: Option<Machine>, code: u32) -> ! {
    if let Some(machine) = machine {
        machine.end(code);
    }
    // PID 1 must not return: the kernel panics, which is what an unknown machine without a way out is left with.
    sys::fork::exit(code as i32)
}
