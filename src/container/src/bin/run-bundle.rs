//! Runs an OCI bundle (a directory with config.json and rootfs) with this crate and nothing else: for tests, and for
//! looking at a container without a virtual machine.
//!
//! ```text
//! run-bundle [--user USER] [--group GROUP]… [--seccomp FILE] [--init] [--terminal | --null] [--resolv-conf TEXT] [--hosts TEXT]
//!            [--volume PATH]… [--share DESTINATION]… [--fill DESTINATION]… [--own-machine] [--interface MAC[=NEW-MAC],ADDRESS/PREFIX,GATEWAY]
//!            CGROUP BUNDLE
//! ```

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use container::cgroup::{Cgroup, Removal};
use container::{
    EtcFiles, Interface, Kind, Network, PidNamespace, Request, Running, Share, Spec, Stdio, Which,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

fn main() -> ExitCode {
    let result = run();
    // A container that could not be made is cleared away before we end.
    while container::sweep() > 0 {
        let _ = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    }
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = match error
                .downcast_ref::<container::Error>()
                .map(|error| error.kind)
            {
                Some(Kind::CommandNotFound) => 127,
                Some(Kind::CommandNotExecutable) => 126,
                _ => 125,
            };
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text += &format!(": {cause}");
                source = cause.source();
            }
            eprintln!("run-bundle: {text}");
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<u8, Box<dyn std::error::Error>> {
    let request = request()?;
    let Running {
        pidfd,
        terminal,
        joinable,
        ..
    } = container::create(request)?.wait()?.start().wait()?;
    if let Some(terminal) = terminal {
        show(terminal.into())?;
    }
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?.ok_or("no status")?;
    remove(joinable.cgroup())?;
    let code = status
        .exit_status()
        .or(status.terminating_signal().map(|signal| 128 + signal));
    Ok(code.unwrap_or(255) as u8)
}

/// Kills what is left in a cgroup, and removes it when that has ended.
fn remove(cgroup: &Cgroup) -> Result<(), Box<dyn std::error::Error>> {
    cgroup.kill()?;
    let mut events = cgroup.events()?;
    while events.state()?.populated {
        poll(&mut [PollFd::new(&events, PollFlags::PRI)], None)?;
    }
    match cgroup.try_remove()? {
        Removal::Removed => Ok(()),
        Removal::StillPopulated => Err("the cgroup has processes again".into()),
    }
}

/// Copies standard input to the terminal, and the terminal to standard output until it is closed.
fn show(terminal: std::fs::File) -> std::io::Result<()> {
    let mut input = terminal.try_clone()?;
    std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut input));
    let mut terminal = terminal;
    let mut buffer = [0; 4096];
    loop {
        match terminal.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => std::io::stdout().write_all(&buffer[..len])?,
            // No process has it open any more.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn request() -> Result<Request, Box<dyn std::error::Error>> {
    let mut options = Vec::new();
    let mut places = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--init" | "--terminal" | "--own-machine" | "--null" => {
                options.push((word, String::new()))
            }
            option if option.starts_with("--") => {
                let value = words.next().ok_or("an option without its value")?;
                options.push((word, value));
            }
            _ => places.push(word),
        }
    }
    let [cgroup, bundle] = places.as_slice() else {
        return Err("want CGROUP BUNDLE".into());
    };
    let bundle = Path::new(bundle);
    let mut request = Request {
        spec: Spec::from_json(&std::fs::read(bundle.join("config.json"))?)?,
        rootfs: bundle.join("rootfs"),
        user: None,
        seccomp: None,
        init: false,
        stdio: Stdio::Pipes {
            stdin: Some(std::io::stdin().as_fd().try_clone_to_owned()?),
            stdout: Some(std::io::stdout().as_fd().try_clone_to_owned()?),
            stderr: Some(std::io::stderr().as_fd().try_clone_to_owned()?),
        },
        etc: EtcFiles::default(),
        groups: Vec::new(),
        network: Network::Loopback,
        pid: PidNamespace::Own,
        volumes: Vec::new(),
        shares: Vec::new(),
        own_machine: false,
        cgroup: PathBuf::from(cgroup),
        run_dir: bundle.join("run"),
    };
    for (option, value) in options {
        match option.as_str() {
            "--user" => request.user = Some(value),
            "--seccomp" => request.seccomp = Some(std::fs::read(value)?),
            "--init" => request.init = true,
            "--terminal" => {
                request.stdio = Stdio::Terminal {
                    rows: 30,
                    columns: 100,
                }
            }
            "--resolv-conf" => request.etc.resolv_conf = Some(value),
            "--hosts" => request.etc.hosts = Some(value),
            "--interface" => request.network = Network::Interfaces(vec![interface(&value)?]),
            "--group" => request.groups.push(value),
            "--volume" => request.volumes.push(value.into()),
            "--share" | "--fill" => request.shares.push(Share {
                destination: value.into(),
                fill: option == "--fill",
            }),
            "--null" => {
                request.stdio = Stdio::Pipes {
                    stdin: None,
                    stdout: None,
                    stderr: None,
                }
            }
            "--own-machine" => request.own_machine = true,
            option => return Err(format!("unknown option {option}").into()),
        }
    }
    Ok(request)
}

fn interface(text: &str) -> Result<Interface, Box<dyn std::error::Error>> {
    let fields: Vec<&str> = text.split(',').collect();
    let [mac, network, gateway] = fields.as_slice() else {
        return Err("want MAC,NETWORK,GATEWAY".into());
    };
    let (old_mac, new_mac) = mac.split_once('=').unwrap_or((mac, mac));
    let (address, prefix_len) = network.split_once('/').ok_or("want ADDRESS/PREFIX")?;
    Ok(Interface {
        which: Which::WithMac(hardware_address(old_mac)?),
        slot: 0,
        mac: hardware_address(new_mac)?,
        address: address.parse()?,
        prefix_len: prefix_len.parse()?,
        gateway: Some(gateway.parse()?),
        mtu: 1400,
    })
}

fn hardware_address(text: &str) -> Result<[u8; 6], Box<dyn std::error::Error>> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()?;
    Ok(bytes.try_into().map_err(|_| "want six bytes")?)
}
