//! The conversation with the monitor: one VM from its first packet to its last.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devices::virtio::Subscriber;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use protocol::chain;
use protocol::vmm::{
    Descriptor, End, FromVmm, MAX_PACKET_LEN, PlacedExtent, ToVmm, VmConfig, Wire,
};
use sys::packet;

use crate::confine;
use crate::ends::Ends;
use crate::halt;
use crate::machine::{self, Backends, Descriptors, Machine};
use crate::report::Sources;
use crate::snapshot;
use crate::stamps::Stamps;
use crate::stats::Stats;
use crate::vcpu::Gate;

/// How long the vCPUs may take to stop before the VM is reported as ended regardless: one may wait for a slow disk.
const STOP_TIMEOUT: Duration = Duration::from_millis(20);

/// Why hull-vmm gave up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No packet came, or none that could be received.
    #[error("the monitor's socket cannot be read")]
    Receive(#[from] packet::Error),
    /// The socket closed before anything was asked.
    #[error("the monitor went away before it said what to build")]
    Closed,
    /// A packet that is not the protocol's.
    #[error("the monitor sent what is not a message of the protocol")]
    Message(#[from] serde_json::Error),
    /// The first packet was another.
    #[error("the monitor's first message is not \"start\"")]
    NotStart,
    /// The VM could not be put together.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The VM could not be saved.
    #[error("the VM could not be saved")]
    Save(#[from] snapshot::Error),
    /// The main loop.
    #[error("the main loop failed")]
    Loop(#[from] event_manager::Error),
    /// The end's eventfd, the kick's handler or a vCPU's thread.
    #[error("the vCPUs could not be started")]
    Start(#[source] std::io::Error),
    /// The limit of files, or the first thread's seccomp filter.
    #[error("hull-vmm could not be confined")]
    Confine(#[source] std::io::Error),
}

/// Builds and runs the VM that the monitor asks for over `socket`. Returns when the VM has ended and the monitor has been
/// told, or with the error that the monitor has been told. The VM's memory is left to the end of the process.
pub fn serve(socket: OwnedFd, stamps: Arc<Stamps>) -> Result<(), Error> {
    let socket = Arc::new(socket);
    let result = run(&socket, stamps);
    if let Err(error) = &result {
        send(
            &socket,
            &FromVmm::Failed {
                message: chain(error),
            },
        );
    }
    result
}

fn run(socket: &Arc<OwnedFd>, stamps: Arc<Stamps>) -> Result<(), Error> {
    let (config, mut descriptors) = receive_start(socket)?;
    let mut manager = EventManager::<Subscriber>::new()?;
    let reactor = Arc::new(manager.remote_endpoint());
    let ends = Ends::new().map_err(Error::Start)?;
    let machine = Machine::new(
        &config,
        &mut descriptors,
        &reactor,
        stamps.clone(),
        ends.clone(),
    )?;
    drop(descriptors);
    confine::limit_files(&config).map_err(Error::Confine)?;
    crate::vcpu::install_handler().map_err(|errno| Error::Start(errno.into()))?;

    if let Some(offers) = &machine.backends.offers {
        let socket = socket.clone();
        offers.on_failure(move |port, error| send_failure(&socket, port, &error));
    }
    send(socket, &FromVmm::Running);
    let Machine {
        vcpus,
        shared,
        vm,
        ram,
        file_memory,
        output,
        backends,
    } = machine;
    let saver = shared.saver.clone();
    let gate = Gate::default();
    let running = vcpus
        .into_iter()
        .map(|vcpu| vcpu.start(&shared, &gate))
        .collect::<Result<_, _>>()
        .map_err(Error::Start)?;
    let vm_stats = Stats::new(vm.fd());
    let sources = Arc::new(Sources::new(
        stamps,
        shared.bus,
        running,
        vm_stats,
        &ram,
        file_memory,
    ));
    subscribe(&mut manager, Watch(ends.clone()), &ends)?;
    let conversation = Conversation {
        socket: socket.clone(),
        ends: ends.clone(),
        backends,
        sources: sources.clone(),
    };
    subscribe(&mut manager, conversation, socket)?;
    // Every thread exists: from here on, only the loop's system calls are needed.
    confine::first_thread().map_err(Error::Confine)?;
    sys::thread::wait_until_confined();
    gate.open();

    let end = wait_for_end(&ends, &sources, &mut manager)?;
    let timeout = match end {
        // They have the state to save; the monitor has a deadline for that.
        End::Saved => None,
        _ => Some(STOP_TIMEOUT),
    };
    stop_vcpus(&sources, &mut manager, timeout)?;
    if let (End::Saved, Some(saver)) = (&end, saver) {
        saver.result()?;
    }
    output.flush();
    send(
        socket,
        &FromVmm::Ended {
            end,
            report: sources.report(),
        },
    );
    // The process ends now, and the kernel takes everything back at once: nothing is gained by doing it in pieces.
    std::mem::forget((vm, ram, sources, manager));
    Ok(())
}

/// Runs the loop until the VM has ended.
fn wait_for_end(
    ends: &Ends,
    sources: &Sources,
    manager: &mut EventManager<Subscriber>,
) -> Result<End, Error> {
    let mut watch = halt::Watch::default();
    loop {
        if let Some(end) = ends.get() {
            return Ok(end.clone());
        }
        match manager.run_with_timeout(watch.timeout_ms())? {
            0 => {
                if let Some(end) = watch.idle(&sources.vcpus) {
                    ends.reach(end);
                }
            }
            _ => watch.busy(),
        }
    }
}

/// Calls `subscriber` when `descriptor` can be read.
fn subscribe(
    manager: &mut EventManager<Subscriber>,
    subscriber: impl MutEventSubscriber + Send + 'static,
    descriptor: &impl AsRawFd,
) -> Result<(), Error> {
    let id = manager.add_subscriber(Arc::new(Mutex::new(subscriber)));
    let mut ops = manager.event_ops(id)?;
    // EPOLL_CTL_ADD fails for want of memory, or at fs.epoll.max_user_watches.
    ops.add(Events::new(descriptor, EventSet::IN))?;
    Ok(())
}

/// Drives the vCPUs out of the guest. The loop goes on meanwhile: a vCPU's thread may be waiting for it.
fn stop_vcpus(
    sources: &Sources,
    manager: &mut EventManager<Subscriber>,
    timeout: Option<Duration>,
) -> Result<(), Error> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let in_time = || deadline.is_none_or(|deadline| Instant::now() < deadline);
    for vcpu in &sources.vcpus {
        vcpu.kick();
    }
    while in_time() && !sources.vcpus.iter().all(|vcpu| vcpu.has_ended()) {
        manager.run_with_timeout(1)?;
    }
    Ok(())
}

fn receive_start(socket: &OwnedFd) -> Result<(Box<VmConfig>, Descriptors), Error> {
    match receive(socket)? {
        None => Err(Error::Closed),
        Some((ToVmm::Start(config), descriptors)) => Ok((config, descriptors)),
        Some(_) => Err(Error::NotStart),
    }
}

/// The next message, or `None` when the monitor is gone.
fn receive(socket: &OwnedFd) -> Result<Option<(ToVmm, Descriptors)>, Error> {
    let mut buffer = vec![0; MAX_PACKET_LEN];
    let received = packet::receive(socket, &mut buffer)?;
    if received.len == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[..received.len])?;
    Ok(Some((message, Descriptors::new(received.descriptors))))
}

fn send_failure(socket: &OwnedFd, port: u32, error: &dyn std::error::Error) {
    let message = chain(error);
    send(socket, &FromVmm::StreamFailed { port, message });
}

fn send(socket: &OwnedFd, message: &FromVmm) {
    let sent = serde_json::to_vec(message)
        .map_err(std::io::Error::from)
        // Not sendmsg(2), which a filter cannot keep from sending descriptors. A peer that is gone is an error: Rust's
        // runtime has SIGPIPE ignored.
        .and_then(|bytes| {
            Ok(rustix::io::retry_on_intr(|| {
                rustix::io::write(socket, &bytes)
            })?)
        });
    if let Err(error) = sent {
        // A monitor that is gone ends the VM through the loop; there is no one to report this to.
        tracing::debug!(%error, "a message to the monitor could not be sent");
    }
}

/// Wakes the loop when the VM has ended.
struct Watch(Ends);

impl MutEventSubscriber for Watch {
    fn process(&mut self, _events: Events, ops: &mut EventOps) {
        // Once is enough: the loop looks at the end itself, and must not be woken again while the vCPUs stop.
        let _ = ops.remove(Events::empty_raw(self.0.as_raw_fd()));
    }

    fn init(&mut self, _ops: &mut EventOps) {}
}

/// The monitor's messages while the VM runs.
struct Conversation {
    socket: Arc<OwnedFd>,
    ends: Ends,
    backends: Backends,
    sources: Arc<Sources>,
}

impl Conversation {
    /// Answers one message. An error here ends the VM: a monitor that cannot be understood cannot keep it.
    fn answer(&self) -> Result<(), Error> {
        let Some((message, descriptors)) = receive(&self.socket)? else {
            self.ends.reach(End::Stopped);
            return Ok(());
        };
        match message {
            ToVmm::Stop => self.ends.reach(End::Stopped),
            ToVmm::Report => send(&self.socket, &FromVmm::Report(self.sources.report())),
            ToVmm::OfferStream { port, stream } => self.offer(port, stream, descriptors),
            ToVmm::ServeFs { socket } => self.serve_fs(socket, descriptors),
            ToVmm::Plug { slot, wire } => self.plug(slot, wire, descriptors),
            ToVmm::AddExtents {
                request,
                disk,
                extents,
            } => self.add_extents(request, &disk, extents, descriptors),
            ToVmm::Start(_) => {
                tracing::error!("the monitor asked for a second VM");
                self.ends.reach(End::Stopped);
            }
        }
        Ok(())
    }

    /// Offers a stream to the guest. One that cannot be offered has failed, and nothing else.
    fn offer(&self, port: u32, stream: Descriptor, mut descriptors: Descriptors) {
        let Some(offers) = &self.backends.offers else {
            tracing::warn!(port, "a stream was offered to a VM without vsock");
            return;
        };
        match descriptors.take(stream) {
            Ok(stream) => {
                if let Err(error) = offers.offer(port, stream) {
                    send_failure(&self.socket, port, &error);
                }
            }
            Err(error) => send_failure(&self.socket, port, &error),
        }
    }

    /// Lets a hull-fs serve the guest. A socket that is of no use is closed: that is what hull-fs, and the monitor, see.
    fn serve_fs(&self, socket: Descriptor, mut descriptors: Descriptors) {
        let Some(fs) = &self.backends.fs else {
            tracing::warn!("a hull-fs was given to a VM without a file system device");
            return;
        };
        let served = match descriptors.take(socket) {
            Ok(socket) => fs.serve(socket).map_err(|error| chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        if let Err(error) = served {
            tracing::warn!(error, "hull-fs's socket cannot be used");
        }
    }

    /// Has a network card lead elsewhere. Of what cannot be used the guest sees nothing.
    fn plug(&self, slot: u8, wire: Option<(Descriptor, Wire)>, mut descriptors: Descriptors) {
        if let Err(error) = self.backends.plug(slot, wire, &mut descriptors) {
            tracing::warn!(error = %chain(&error), "a network card keeps its wire");
        }
    }

    fn add_extents(
        &self,
        request: u32,
        disk: &str,
        extents: Vec<PlacedExtent>,
        mut descriptors: Descriptors,
    ) {
        let added = self.backends.add_extents(disk, extents, &mut descriptors);
        let answer = match added {
            Ok(()) => FromVmm::Added { request },
            Err(error) => FromVmm::Refused {
                request,
                message: chain(&error),
            },
        };
        send(&self.socket, &answer);
    }
}

impl MutEventSubscriber for Conversation {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let result = match events.event_set().contains(EventSet::IN) {
            true => self.answer(),
            false => Err(Error::Closed),
        };
        if let Err(error) = result {
            if !matches!(error, Error::Closed) {
                tracing::error!(error = %chain(&error), "the conversation with the monitor ends");
            }
            self.ends.reach(End::Stopped);
            let _ = ops.remove(Events::empty_raw(self.socket.as_raw_fd()));
        }
    }

    fn init(&mut self, _ops: &mut EventOps) {}
}
