//! `agent-native`: the agent's logic as an ordinary process, for tests.
//!
//! ```text
//! agent-native SOCKETS RUN-DIR CGROUP LAYER-DEVICE
//! ```
//!
//! Connects to the Unix sockets SOCKETS/control and, for streams, SOCKETS/<port>. Wants mount and PID namespaces of
//! its own, and a network namespace, whose device a container could get (`unshare --mount --pid --net --fork`); and root.
//!
//! Its machine is the host, which it does not touch: what it wakes with it appends to SOCKETS/woken, one line each time, and
//! without entropy (zeros) it does not wake.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent::{Asleep, End, NotAwake, Surroundings};
use protocol::agent::{Hello, Wake};
use protocol::frame;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [sockets, run_dir, cgroup, layer_device] =
        words.try_into().map_err(|_| "want four paths")?;
    let woken = sockets.join("woken");
    let control_socket = sockets.join("control");
    let asleep = Asleep::new(Surroundings {
        dial: Box::new(move |port| Ok(UnixStream::connect(sockets.join(port.to_string()))?.into())),
        run_dir,
        cgroup,
        layer_device: Some(layer_device),
        interface: |it| container::Which::Device(protocol::vmm::card_mac(it.slot)),
        is_own_machine: false,
        open_files: None,
        wake: Box::new(move |wake| record(wake, &woken)),
        on_exec: Box::new(|| ()),
    })?;
    let mut control = UnixStream::connect(control_socket)?;
    let kernel_release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    frame::write(
        &mut control,
        &Hello {
            build: protocol::BUILD.to_owned(),
            kernel_release,
        },
    )?;
    match asleep.serve(control.into())? {
        End::Shutdown(code) => Ok(ExitCode::from(code as u8)),
        End::ControlLost(error) => {
            eprintln!("agent-native: {error:?}");
            Ok(ExitCode::from(200))
        }
    }
}

fn record(wake: &Wake, woken: &Path) -> Result<(), NotAwake> {
    let failed = |source| NotAwake {
        step: "give the kernel entropy",
        source,
    };
    if wake.entropy == [0; 32] {
        return Err(failed(std::io::ErrorKind::PermissionDenied.into()));
    }
    let options = OpenOptions::new().create(true).append(true).open(woken);
    options
        .and_then(|mut file| writeln!(file, "{} {:?}", wake.realtime_ns, wake.entropy))
        .map_err(failed)
}
