//! `agent-native`: the agent's logic as an ordinary process, for tests.
//!
//! ```text
//! agent-native SOCKETS RUN-DIR CGROUP LAYER-DEVICE
//! ```
//!
//! Connects to the Unix sockets SOCKETS/control and, for streams, SOCKETS/<port>. Wants mount and PID namespaces of
//! its own (`unshare --mount --pid --fork`), and root.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use agent::{End, Surroundings, serve};
use protocol::agent::Hello;
use protocol::frame;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [sockets, run_dir, cgroup, layer_device] =
        words.try_into().map_err(|_| "want four paths")?;
    let mut control = UnixStream::connect(sockets.join("control"))?;
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
    let place = Surroundings {
        dial: Box::new(move |port| Ok(UnixStream::connect(sockets.join(port.to_string()))?.into())),
        run_dir,
        cgroup,
        layer_device: Some(layer_device),
        on_exec: Box::new(|| ()),
    };
    match serve(control.into(), place)? {
        End::Shutdown(code) => Ok(ExitCode::from(code as u8)),
        End::ControlLost(error) => {
            eprintln!("agent-native: {error:?}");
            Ok(ExitCode::from(200))
        }
    }
}
