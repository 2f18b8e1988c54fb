//! The hull-vmm process: spawning it, handing it its VM, and how it ended.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::record::Vm;
use protocol::vmm::{Descriptor, DiskExtent, End, FromVmm, MAX_PACKET_LEN, PlacedExtent, ToVmm};

use crate::cgroup::VmCgroup;
use crate::devices::{self, NetworkEnd, Own};
use crate::jail;
use crate::process::{Process, is_ready};

/// How long hull-vmm may take for its last words, and then for its end: both follow at once where all is well, and neither
/// comes where a guest has only hung up, or has taken hull-vmm over.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a VM could not be started or went away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file that the VM needs.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no KVM.
    #[error(
        "/dev/kvm is not there: this machine has no KVM (see `hull doctor`), or use --isolation native"
    )]
    NoKvm,
    /// The user may not use KVM.
    #[error(
        "you may not open /dev/kvm; join the group that owns it (`sudo usermod -aG kvm $USER`, then log in again)"
    )]
    KvmPermission,
    /// The writable disk.
    #[error("cannot make the container's writable disk in {folder}")]
    Scratch {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its jail.
    #[error(transparent)]
    Jail(#[from] jail::Error),
    /// hull-vmm ended against its will.
    #[error("{0}")]
    LastWords(String),
    /// A message to hull-vmm.
    #[error("cannot talk to hull-vmm")]
    Send(#[source] io::Error),
    /// A message from hull-vmm.
    #[error("cannot understand hull-vmm")]
    Receive(#[from] sys::packet::Error),
    /// The same.
    #[error("hull-vmm sent something unintelligible")]
    Malformed(#[from] serde_json::Error),
    /// It is gone.
    #[error("hull-vmm ended unexpectedly ({0})")]
    Gone(String),
    /// The VM could not be built.
    #[error("cannot build the VM: {0}")]
    Build(String),
    /// The VM ended before its container.
    #[error("{0}")]
    Ended(String),
}

impl Error {
    /// Whether hull-vmm refused what it was asked for: not that it was killed, which says nothing of that.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Error::Build(_))
    }
}

/// The process and its socket.
#[derive(Debug)]
pub(crate) struct Vmm {
    /// The process.
    pub(crate) process: Process,
    words: OwnedFd,
    socket: OwnedFd,
}

impl Vmm {
    /// Spawns hull-vmm in its jail, where it waits for its VM, which is to have shares or not.
    pub(crate) fn spawn(id: &str, vm: &Vm, shares: bool) -> Result<Vmm, Error> {
        let (ours, theirs) = sys::packet::pair().map_err(Error::Send)?;
        let cgroup = VmCgroup::make(id, vm, shares);
        let directory = cgroup.as_ref().map(VmCgroup::directory);
        match jail::spawn(&vm.program, theirs, vm.jail, directory) {
            Ok(jailed) => Ok(Vmm {
                process: Process::ours(jailed.child, jailed.users, cgroup),
                words: jailed.words,
                socket: ours,
            }),
            Err(error) => {
                if let Some(cgroup) = cgroup {
                    cgroup.remove();
                }
                Err(error.into())
            }
        }
    }

    /// Hands over the VM.
    pub(crate) fn start(&mut self, vm: &Vm, own: Own<'_>) -> Result<(), Error> {
        let (config, descriptors) = devices::assemble(vm, own)?;
        self.send(&ToVmm::Start(Box::new(config)), &descriptors)
    }

    /// Joins the guest's connection to `port` with `stream`, when it comes.
    pub(crate) fn offer(&mut self, port: u32, stream: OwnedFd) -> Result<(), Error> {
        self.send(
            &ToVmm::OfferStream {
                port,
                stream: Descriptor(0),
            },
            &[stream],
        )
    }

    /// Lets the hull-fs at the other end of `socket` serve the guest.
    pub(crate) fn serve_fs(&mut self, socket: OwnedFd) -> Result<(), Error> {
        let message = ToVmm::ServeFs {
            socket: Descriptor(0),
        };
        self.send(&message, &[socket])
    }

    /// Has a network card lead there. (Not answered.)
    pub(crate) fn plug(&mut self, slot: u8, end: NetworkEnd) -> Result<(), Error> {
        let NetworkEnd { descriptor, wire } = end;
        let wire = Some((Descriptor(0), wire));
        self.send(&ToVmm::Plug { slot, wire }, &[descriptor])
    }

    /// Has a network card lead nowhere.
    pub(crate) fn unplug(&mut self, slot: u8) -> Result<(), Error> {
        self.send(&ToVmm::Plug { slot, wire: None }, &[])
    }

    /// Adds files to the layer device; hull-vmm answers with the number of the request.
    pub(crate) fn add_layers(
        &mut self,
        request: u32,
        layers: Vec<(OwnedFd, u64, u64)>,
    ) -> Result<(), Error> {
        let mut extents = Vec::new();
        let mut files = Vec::new();
        for (file, len_bytes, offset_bytes) in layers {
            extents.push(PlacedExtent {
                offset_bytes,
                extent: DiskExtent {
                    file: Descriptor(files.len() as u32),
                    len_bytes,
                },
            });
            files.push(file);
        }
        let disk = devices::LAYERS_SERIAL.to_owned();
        self.send(
            &ToVmm::AddExtents {
                request,
                disk,
                extents,
            },
            &files,
        )
    }

    /// Asks for a report.
    pub(crate) fn ask_report(&mut self) -> Result<(), Error> {
        self.send(&ToVmm::Report, &[])
    }

    /// The next packet.
    pub(crate) fn receive(&mut self) -> Result<FromVmm, Error> {
        let mut buffer = vec![0; MAX_PACKET_LEN];
        let packet = sys::packet::receive(&self.socket, &mut buffer)?;
        match packet.len {
            0 => Err(self.how_it_ended()),
            len => Ok(serde_json::from_slice(&buffer[..len])?),
        }
    }

    /// Waits for hull-vmm's word that the VM has ended, and why; `None` if it does not come.
    pub(crate) fn receive_end(&mut self) -> Option<Result<End, Error>> {
        let deadline = Instant::now() + LAST_WORDS;
        while is_ready(&self.socket, deadline) {
            match self.receive() {
                Ok(FromVmm::Ended { end, .. }) => return Some(Ok(end)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    /// To be polled for packets.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Waits until its guest runs; until then nothing but this process has a say in what it does.
    pub(crate) fn wait_until_it_runs(&mut self) -> Result<(), Error> {
        loop {
            match self.receive()? {
                FromVmm::Running => return Ok(()),
                FromVmm::Failed { message } => return Err(Error::Build(message)),
                _ => {}
            }
        }
    }

    fn last_words(&mut self) -> Error {
        loop {
            match self.receive() {
                Ok(FromVmm::Failed { message }) => return Error::Build(message),
                // A guest that is faster than what it was to be given.
                Ok(FromVmm::Ended { end, .. }) => return Error::Ended(explain(&end, None)),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    /// Why the socket is closed: its own words first, what the kernel says of its end otherwise.
    fn how_it_ended(&mut self) -> Error {
        if !self.process.has_ended_by(Instant::now() + LAST_WORDS) && !self.process.kill() {
            return Error::Gone("it closed its socket and does not end".to_owned());
        }
        let status = self.process.wait();
        match jail::explain("hull-vmm", self.words.as_fd()) {
            Ok(Some(words)) => Error::LastWords(words),
            Ok(None) => Error::Gone(match status {
                Some(status) => status.to_string(),
                None => "of its own accord".to_owned(),
            }),
            Err(error) => Error::Gone(error.to_string()),
        }
    }

    fn send(&mut self, message: &ToVmm, descriptors: &[OwnedFd]) -> Result<(), Error> {
        let bytes = serde_json::to_vec(message)?;
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        match sys::packet::send(&self.socket, &bytes, &borrowed) {
            // It has ended; its last words say why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(self.last_words()),
            other => other.map_err(Error::Send),
        }
    }
}

/// What the end of a VM means, where its container has not ended before.
pub(crate) fn explain(end: &End, panic: Option<String>) -> String {
    match (end, panic) {
        (_, Some(panic)) => format!("the guest kernel panicked: {panic}"),
        (End::Code { code }, None) => {
            format!("the guest agent gave up and ended the VM with code {code}")
        }
        (End::Reset, None) => "the guest reset itself".into(),
        (End::Halted, None) => "the guest halted".into(),
        (End::TripleFault, None) => "the guest crashed with a triple fault".into(),
        (End::VcpuError { vcpu, message }, None) => {
            format!("vCPU {vcpu} of the guest cannot go on: {message}")
        }
        (End::Stopped, None) => "the VM was stopped".into(),
        (End::Saved, None) => "the VM was saved".into(),
    }
}

/// Opens a file of hull's state.
pub(crate) fn open_own(path: &Path) -> Result<File, Error> {
    sys::trusted::read(path).map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })
}

/// Opens a part of the installation, or a kernel of the user's choice.
pub(crate) fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })
}

/// Opens /dev/kvm, with an answer to each of the ways in which that fails.
pub(crate) fn open_kvm() -> Result<File, Error> {
    let path = PathBuf::from("/dev/kvm");
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NoKvm,
            io::ErrorKind::PermissionDenied => Error::KvmPermission,
            _ if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => Error::NoKvm,
            _ => Error::Open { path, source },
        })
}
