//! How a VM begins: from its template, which may have to be made first, or with its kernel.
//!
//! ```text
//! the template is there ---------------------------------> from it
//! it is not ---> it is not being made ---> it is made here ---> from it
//!                another makes it, or it cannot be made -> with the kernel
//! hull-vmm does not begin from it ---> it is removed ----> with the kernel
//! nor from one just made --> no other is made on this host -> with the kernel
//! KVM gives its kernel up -------------------------------> not at all
//! ```
//!
//! Invariants: what is wrong with a template keeps no VM from booting its kernel, and the user is told why once that runs; a
//! VM that is to be saved has no container, no layer, no network and no conversation, and ends with its client.

use std::io;
use std::path::{Path, PathBuf};

use network::Host;
use protocol::monitor::Began;
use protocol::record::{LayerFile, SandboxConfig, Vm};
use protocol::timeline::Nanos;
use protocol::vmm::{End, FromVmm};
use rustix::event::{PollFd, PollFlags};
use sys::signalfd::SignalFd;

use super::{Claim, Error as FolderError, claim, make_useless, open, remove};
use crate::console::Console;
use crate::devices::{self, Begin, NetworkEnd, Own, SavedVm};
use crate::vmm::{self, Vmm};
use crate::{chain, wait_for};

/// What a template of a small VM takes on disk.
const TYPICAL_MIB: u64 = 35;
/// Less room than this is worth a word when something could not be saved.
const LITTLE_BYTES: u64 = 128 << 20;

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// hull-vmm.
    #[error(transparent)]
    Vmm(#[from] vmm::Error),
    /// The VM's surroundings.
    #[error("cannot prepare the VM that is to be saved")]
    Prepare(#[from] io::Error),
    /// The VM did not come so far.
    #[error("{why}{}", last_line(.console))]
    Ended {
        /// How it ended.
        why: String,
        /// Its console's last lines.
        console: Vec<String>,
    },
    /// KVM gave the guest's kernel up.
    #[error("{0}")]
    CannotRun(String),
    /// The monitor was told to end.
    #[error("hull was asked to end while the container's VM was prepared")]
    GivenUp,
    /// Waiting failed.
    #[error(transparent)]
    Wait(#[from] crate::Error),
}

fn last_line(console: &[String]) -> String {
    let line = console.last();
    line.map_or_else(String::new, |line| format!("; its last words were: {line}"))
}

/// Why there will be no VM, with a template or without.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoVm {
    /// The monitor was told to end.
    #[error("hull was asked to end before the container's VM began")]
    GivenUp,
    /// This host's KVM does not run the kernel: another attempt would end in the same way.
    #[error("{0}")]
    CannotRun(String),
}

/// How a VM is to begin, or has begun.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// The template's folder and files.
    template: Option<PathBuf>,
    saved: Option<SavedVm>,
    pub(crate) began: Began,
    /// When the template was there, if it was made here.
    pub(crate) made: Option<Nanos>,
    /// What the user should know once the VM runs.
    notice: Option<String>,
    /// A template that is not to be made again, once the VM runs without it.
    useless: Option<PathBuf>,
}

impl Beginning {
    fn with_kernel(notice: Option<String>) -> Beginning {
        Beginning {
            template: None,
            saved: None,
            began: Began::WithKernel,
            made: None,
            notice,
            useless: None,
        }
    }

    /// Finds the template of this VM, or makes it. `folder` is the sandbox's.
    pub(crate) fn find(
        config: &SandboxConfig,
        vm: &Vm,
        folder: &Path,
        layers: &[LayerFile],
        quit: &SignalFd,
    ) -> Result<Beginning, NoVm> {
        let fits = devices::layers_fit(layers);
        let Some(template) = vm.template.as_deref().filter(|_| fits) else {
            return Ok(Beginning::with_kernel(None));
        };
        let made = match open(template) {
            Ok(Some(saved)) => Ok(Some((saved, None))),
            Ok(None) => make(config, vm, template, folder, quit),
            Err(error) => return Ok(Beginning::without_damaged(template, &error)),
        };
        match made {
            Ok(Some((saved, made))) => Ok(Beginning {
                template: Some(template.to_owned()),
                saved: Some(saved),
                began: Began::FromTemplate,
                made,
                notice: None,
                useless: None,
            }),
            Ok(None) => Ok(Beginning::with_kernel(None)),
            Err(Error::GivenUp) => Err(NoVm::GivenUp),
            Err(Error::CannotRun(why)) => Err(NoVm::CannotRun(why)),
            Err(error) => {
                let room = little_room(folder);
                let notice = format!(
                    "there is no template for this container's VM, which boots its kernel instead: {}{room}",
                    chain(&error)
                );
                Ok(Beginning::with_kernel(Some(notice)))
            }
        }
    }

    /// What hull-vmm is told; the files go with it.
    pub(crate) fn take(&mut self) -> Begin {
        match self.saved.take() {
            Some(saved) => Begin::Saved(saved),
            None => Begin::Kernel,
        }
    }

    /// Whether hull-vmm was to begin from a template.
    pub(crate) fn is_from_template(&self) -> bool {
        self.template.is_some()
    }

    /// Gives up the template, from which hull-vmm does not begin: the VM is to boot its kernel.
    pub(crate) fn without_template(self, error: &dyn std::error::Error) -> Beginning {
        match self.template {
            None => self,
            // It cannot be damaged yet: another one would be no better.
            Some(template) if self.made.is_some() => {
                let notice = format!(
                    "VMs like this one cannot begin from templates on this host, and boot their kernels for a day: {}",
                    chain(error)
                );
                Beginning {
                    useless: Some(template),
                    ..Beginning::with_kernel(Some(notice))
                }
            }
            Some(template) => Beginning::without_damaged(&template, error),
        }
    }

    fn without_damaged(template: &Path, error: &dyn std::error::Error) -> Beginning {
        let mut notice = format!(
            "the template {} was removed, and the VM boots its kernel instead: {}",
            template.display(),
            chain(error)
        );
        if let Err(error) = remove(template) {
            notice = format!(
                "the template {} cannot be used, and the VM boots its kernel instead; remove it yourself: {}",
                template.display(),
                chain(&error)
            );
        }
        Beginning::with_kernel(Some(notice))
    }

    /// The VM runs: notes what was found out on the way, and returns what the user should know. (Had it not come to run, its
    /// own error would say more.)
    pub(crate) fn finish(&mut self) -> Option<String> {
        if let Some(template) = self.useless.take()
            && let Err(error) = make_useless(&template)
        {
            tracing::warn!(%error, "each VM like this one will make a template in vain");
        }
        self.notice.take()
    }
}

/// What there is to say about the room in a folder's file system.
fn little_room(folder: &Path) -> String {
    match rustix::fs::statvfs(folder) {
        Ok(stat) if stat.f_bavail.saturating_mul(stat.f_frsize) < LITTLE_BYTES => format!(
            " (a template takes some {TYPICAL_MIB} MiB, and {} are free where hull keeps its state)",
            stat.f_bavail.saturating_mul(stat.f_frsize) >> 20
        ),
        _ => String::new(),
    }
}

/// Makes the template and opens it; `None` if another process is making it.
fn make(
    config: &SandboxConfig,
    vm: &Vm,
    template: &Path,
    folder: &Path,
    quit: &SignalFd,
) -> Result<Option<(SavedVm, Option<Nanos>)>, Error> {
    let unfinished = match claim(template)? {
        Claim::Others => return Ok(None),
        Claim::There => return Ok(open(template)?.map(|saved| (saved, None))),
        Claim::Ours(unfinished) => unfinished,
    };
    let files = unfinished.files()?;
    files.memory.set_len(u64::from(vm.memory_mib) << 20)?;
    save(config, vm, files, folder, quit)?;
    unfinished.finish()?;
    let made = sys::clock::monotonic_ns();
    Ok(open(template)?.map(|saved| (saved, Some(made))))
}

/// Boots a VM without a container and waits until it is saved.
fn save(
    config: &SandboxConfig,
    vm: &Vm,
    files: SavedVm,
    folder: &Path,
    quit: &SignalFd,
) -> Result<(), Error> {
    let mut vmm = Vmm::spawn(&config.id, vm, false)?;
    let (mut console, console_end) = Console::new()?;
    let network = match vm.cards {
        0 => None,
        _ => Some(NetworkEnd::unattached(&config.id, Host::of_this_user())?),
    };
    vmm.start(
        vm,
        Own {
            begin: Begin::ToBeSaved(files),
            layers: &[],
            folder,
            keeps_disk: false,
            writes_shares: false,
            console: console_end,
            network,
            cards: vm.cards,
            wire: devices::wire_of_this_user(),
        },
    )?;
    loop {
        let mut fds = vec![
            PollFd::new(quit, PollFlags::IN),
            PollFd::from_borrowed_fd(vmm.descriptor(), PollFlags::IN),
        ];
        fds.extend(
            console
                .descriptor()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        wait_for(&mut fds, None)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            return Err(Error::GivenUp);
        }
        if ready.get(2) == Some(&true) {
            console.read()?;
        }
        if !ready[1] {
            continue;
        }
        match vmm.receive()? {
            FromVmm::Ended {
                end: End::Saved, ..
            } => return Ok(()),
            // Its memory is a file: on a full disk it ends in the same way, and has its own memory when it boots.
            FromVmm::Ended {
                end: end @ End::VcpuError { .. },
                ..
            } if little_room(folder).is_empty() => {
                return Err(Error::CannotRun(vmm::explain(&end, None)));
            }
            FromVmm::Ended { end, .. } => {
                console.read()?;
                return Err(Error::Ended {
                    why: vmm::explain(&end, console.panic()),
                    console: console.last_lines(),
                });
            }
            FromVmm::Failed { message } => return Err(vmm::Error::Build(message).into()),
            _ => {}
        }
    }
}
