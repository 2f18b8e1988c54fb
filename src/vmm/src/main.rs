//! hull-vmm: started by the monitor with a socket as descriptor 3; or, as `hull-vmm probe [DESCRIPTOR]`, to find out
//! whether this machine's KVM can boot a stock kernel.

use std::process::ExitCode;
use std::sync::Arc;

use protocol::vmm::{CONTROL_FD, WORDS_FD};
use vmm::probe::{self, Finding};
use vmm::stamps::Stamps;
use vmm::{confine, control};

fn main() -> ExitCode {
    let stamps = Arc::new(Stamps::default());
    stamps.vmm_started.set();
    let mut arguments = std::env::args().skip(1);
    match (
        arguments.next().as_deref(),
        arguments.next(),
        arguments.next(),
    ) {
        (None, ..) => serve(stamps),
        (Some("probe"), descriptor, None) => probe(descriptor.as_deref()),
        _ => {
            eprintln!(
                "hull-vmm is started by hull; by hand: hull-vmm probe [DESCRIPTOR OF /dev/kvm]"
            );
            ExitCode::from(2)
        }
    }
}

fn serve(stamps: Arc<Stamps>) -> ExitCode {
    let socket = match sys::spawn::inherited(CONTROL_FD) {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!(
                "hull-vmm: no control socket as descriptor {CONTROL_FD}: {error}; hull starts it with one"
            );
            return ExitCode::from(2);
        }
    };
    if let Err(error) = sys::spawn::inherited(WORDS_FD).and_then(confine::prepare) {
        eprintln!(
            "hull-vmm: no pipe for last words as descriptor {WORDS_FD}: {error}; hull starts it with one"
        );
        return ExitCode::from(2);
    }
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    let code = match control::serve(socket, stamps) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("hull-vmm: {}", protocol::chain(&error));
            1
        }
    };
    // At once: what a runtime does at a program's end needs calls that no thread has.
    sys::fork::exit(code)
}

fn probe(descriptor: Option<&str>) -> ExitCode {
    let kvm = match descriptor {
        // A developer's command, outside of any jail: the one place where hull-vmm opens a path.
        None => std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(Into::into),
        Some(number) => number
            .parse()
            .map_err(std::io::Error::other)
            .and_then(sys::spawn::inherited),
    };
    let finding = match kvm {
        Ok(kvm) => probe::run(kvm),
        Err(error) => Finding::NoKvm(format!("/dev/kvm cannot be opened: {error}")),
    };
    println!("{}", finding.to_json());
    match finding {
        Finding::BootsStockKernel => ExitCode::SUCCESS,
        Finding::CannotBoot(_) | Finding::NoKvm(_) => ExitCode::FAILURE,
    }
}
