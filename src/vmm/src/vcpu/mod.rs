//! A vCPU: its state at reset, its thread, its end.
//!
//! The thread runs, decodes the exit and hands it to the bus, nothing else, until the VM has ended.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use arch::cpuid;
use arch::registers::{self, Entry};
use kvm_bindings::{
    CpuId, KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_UNINITIALIZED, Msrs,
    kvm_cpuid_entry2, kvm_msr_entry, kvm_xcrs,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use protocol::chain;
use protocol::vmm::End;
use vmm_sys_util::signal::Killable;

use crate::bus::Bus;
use crate::ends::Ends;
use crate::kvm::{Error, Vm, failed};
use crate::snapshot::{self, Saver, VcpuState};
use crate::stamps::Stamps;
use crate::stats::Stats;

mod fault;
mod kick;

pub use kick::install_handler;
use kick::{ImmediateExit, kick_signal};

/// A vCPU that has not run yet.
pub struct Vcpu {
    index: u8,
    fd: VcpuFd,
    immediate_exit: ImmediateExit,
    stats: Option<Stats>,
}

impl Vcpu {
    /// Makes vCPU `of.index`; [`Start::set`] sets where it begins.
    pub fn new(vm: &Vm, of: cpuid::Vcpu, supported: &[kvm_cpuid_entry2]) -> Result<Self, Error> {
        let fd = vm.create_vcpu(of.index)?;
        let cpuid = CpuId::from_entries(&of.cpuid(supported))
            .expect("fewer entries than KVM gave, and two more");
        fd.set_cpuid2(&cpuid).map_err(failed("KVM_SET_CPUID2"))?;
        if let Some(xcr0) = arch::xcr::xcr0(cpuid.as_slice()) {
            set_xcr0(&fd, xcr0)?;
        }
        let immediate_exit = ImmediateExit::new(&fd).map_err(|errno| Error::Ioctl {
            ioctl: "mmap of a vCPU",
            source: kvm_ioctls::Error::new(errno.raw_os_error()),
        })?;
        let stats = Stats::new(&fd);
        Ok(Self {
            index: of.index,
            fd,
            immediate_exit,
            stats,
        })
    }

    /// Starts the vCPU's thread, which waits for the gate.
    pub fn start(self, shared: &Shared, gate: &Gate) -> io::Result<Running> {
        let counts = Arc::new(Counts::default());
        let runner = Runner {
            index: self.index,
            fd: self.fd,
            shared: shared.clone(),
            counts: counts.clone(),
        };
        let gate = gate.clone();
        // The name decides about the thread's filter.
        let kind = match shared.saver {
            None => "vcpu",
            Some(_) => "save",
        };
        let thread = sys::thread::spawn(&format!("{kind}{}", self.index), move || {
            gate.0.wait();
            runner.run()
        })?;
        Ok(Running {
            thread,
            immediate_exit: self.immediate_exit,
            stats: self.stats,
            counts,
        })
    }
}

/// Where vCPUs begin.
pub enum Start {
    /// The first begins here; the others wait until it starts them (INIT, SIPI).
    At(Entry),
    /// Each where it was saved.
    Saved(Vec<VcpuState>),
}

impl Start {
    /// Sets all vCPUs of a VM. All, since KVM decides by the times of writes whether their time stamp counters go together,
    /// and a vCPU that is made counts as a write.
    pub fn set(&self, vcpus: &[Vcpu]) -> Result<(), Error> {
        match self {
            Self::At(entry) => vcpus
                .iter()
                .try_for_each(|vcpu| reset(&vcpu.fd, vcpu.index, *entry)),
            Self::Saved(states) => snapshot::restore(vcpus.iter().map(|vcpu| &vcpu.fd), states),
        }
    }
}

/// Puts a new vCPU into the state in which a kernel expects it.
fn reset(fd: &VcpuFd, index: u8, entry: Entry) -> Result<(), Error> {
    set_msrs(
        fd,
        &arch::msr::AT_RESET.map(|msr| kvm_msr_entry {
            index: msr.index,
            data: msr.value,
            ..Default::default()
        }),
    )?;
    let mut lapic = fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?;
    arch::lapic::wire_lints(&mut lapic.regs);
    fd.set_lapic(&lapic).map_err(failed("KVM_SET_LAPIC"))?;
    if index == 0 {
        let mut sregs = fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        registers::special(&mut sregs, entry);
        fd.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))?;
        fd.set_regs(&registers::general(entry))
            .map_err(failed("KVM_SET_REGS"))?;
    }
    Ok(())
}

fn set_xcr0(fd: &VcpuFd, value: u64) -> Result<(), Error> {
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    xcrs.xcrs[0].value = value;
    fd.set_xcrs(&xcrs).map_err(failed("KVM_SET_XCRS"))
}

/// Sets these, in their order: all of them or an error.
pub(crate) fn set_msrs(fd: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), Error> {
    let msrs = Msrs::from_entries(entries).map_err(|_| {
        let too_many = rustix::io::Errno::TOOBIG.raw_os_error();
        failed("KVM_SET_MSRS")(kvm_ioctls::Error::new(too_many))
    })?;
    // KVM stops at the first that it refuses.
    let set = fd.set_msrs(&msrs).map_err(failed("KVM_SET_MSRS"))?;
    match entries.get(set) {
        None => Ok(()),
        Some(refused) => Err(Error::Msr {
            index: refused.index,
        }),
    }
}

/// What vCPUs wait at until the VM is complete; clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<OnceLock<()>>);

impl Gate {
    /// Lets them go.
    pub fn open(&self) {
        // A gate that is open stays open.
        let _ = self.0.set(());
    }
}

/// What all vCPUs share.
#[derive(Clone)]
pub struct Shared {
    /// The bus.
    pub bus: Arc<Bus>,
    /// The end of the VM.
    pub ends: Ends,
    /// For T1.
    pub stamps: Arc<Stamps>,
    /// Where the VM is saved when it ends with [`End::Saved`].
    pub saver: Option<Arc<Saver>>,
}

/// Exits to user space that are no access.
#[derive(Debug, Default)]
pub struct Counts {
    /// KVM_EXIT_HLT.
    pub halts: AtomicU64,
    /// Kicks and signals.
    pub interrupted: AtomicU64,
    /// A question to the vCPU, and its answer.
    life: AtomicU8,
    /// See [`Running::has_ended`].
    ended: AtomicBool,
}

/// Interrupts are on (SDM vol. 1, 3.4.3).
const RFLAGS_IF: u64 = 1 << 9;

/// No probe is pending.
const LIFE_UNASKED: u8 = 0;
/// [`Running::ask_for_life`] waits for an answer.
const LIFE_ASKED: u8 = 1;
/// The vCPU will run again.
const LIFE_ALIVE: u8 = 2;
/// The vCPU will not run again on its own.
const LIFE_DEAD: u8 = 3;

/// A vCPU with its thread.
pub struct Running {
    thread: JoinHandle<()>,
    immediate_exit: ImmediateExit,
    /// KVM's counters.
    pub stats: Option<Stats>,
    /// hull-vmm's own.
    pub counts: Arc<Counts>,
}

impl Running {
    /// Makes the vCPU leave the guest, now or at its next attempt to enter it. The thread ends if the VM has ended.
    pub fn kick(&self) {
        // First the flag, then the signal: a thread that is not in the guest yet finds the flag, one that is in there is
        // driven out by the signal, and there is nothing in between.
        self.immediate_exit.set();
        // The thread is there as long as the process.
        let _ = self.thread.kill(kick_signal());
    }

    /// Has the vCPU look whether it will ever run again; [`Running::is_dead`] tells, a moment later.
    pub fn ask_for_life(&self) {
        self.counts.life.store(LIFE_ASKED, Ordering::SeqCst);
        self.kick();
    }

    /// What the vCPU found, or `None` while it has not looked.
    pub fn is_dead(&self) -> Option<bool> {
        match self.counts.life.load(Ordering::SeqCst) {
            LIFE_UNASKED | LIFE_ASKED => None,
            found => Some(found == LIFE_DEAD),
        }
    }

    /// Whether the vCPU has ended: it will not touch the guest again.
    pub fn has_ended(&self) -> bool {
        self.counts.ended.load(Ordering::SeqCst)
    }
}

struct Runner {
    index: u8,
    fd: VcpuFd,
    shared: Shared,
    counts: Arc<Counts>,
}

impl Runner {
    fn run(mut self) {
        if self.index == 0 {
            if let Err(error) = self.shared.bus.resume() {
                self.shared.ends.reach(self.error(chain(&error)));
            }
            self.shared.stamps.first_run.set();
        }
        while self.shared.ends.get().is_none() {
            if let Some(end) = self.step() {
                self.shared.ends.reach(end);
            }
        }
        if let (Some(End::Saved), Some(saver)) = (self.shared.ends.get(), self.shared.saver.clone())
        {
            // Finishes an access after its exit has been answered, without entering the guest (KVM documentation, 5).
            self.fd.set_kvm_immediate_exit(1);
            let _ = self.fd.run();
            let state = VcpuState::save(&self.fd, &saver.msrs);
            let state = state.map_err(snapshot::Error::from);
            saver.deliver(self.index, state, &self.shared.bus);
        }
        self.counts.ended.store(true, Ordering::SeqCst);
    }

    /// Enters the guest once and answers its exit.
    fn step(&mut self) -> Option<End> {
        let bus = &self.shared.bus;
        match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => bus.port_write(port, data),
            Ok(VcpuExit::IoIn(port, data)) => bus.port_read(port, data),
            Ok(VcpuExit::MmioRead(address, data)) => bus.mmio_read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => bus.mmio_write(address, data),
            Ok(VcpuExit::Hlt) => {
                // With the interrupt chip in KVM a halted vCPU waits there; only a VM without it comes here.
                self.counts.halts.fetch_add(1, Ordering::Relaxed);
                return Some(End::Halted);
            }
            Ok(VcpuExit::Shutdown) => return Some(End::TripleFault),
            Ok(VcpuExit::SystemEvent(kind, _)) => return self.system_event(kind),
            Ok(VcpuExit::Intr) => self.interrupted(),
            Ok(VcpuExit::InternalError) => {
                let message = fault::internal(&mut self.fd);
                return Some(self.error(message));
            }
            Ok(VcpuExit::FailEntry(reason, _)) => {
                return Some(self.error(fault::entry(&self.fd, reason)));
            }
            Ok(other) => {
                let message =
                    format!("KVM left the guest for a reason that hull does not know: {other:?}");
                return Some(self.error(message));
            }
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => {
                self.interrupted();
            }
            Err(error) => {
                let message = fault::run_failed(&self.fd, error);
                return Some(self.error(message));
            }
        }
        None
    }

    /// Kicked: the VM has ended, or a probe is pending.
    fn interrupted(&mut self) {
        self.counts.interrupted.fetch_add(1, Ordering::Relaxed);
        // After this, the flag: an end that is reached in between is seen before the guest is entered again.
        self.fd.set_kvm_immediate_exit(0);
        if self.counts.life.load(Ordering::SeqCst) == LIFE_ASKED {
            let found = if self.is_dead() {
                LIFE_DEAD
            } else {
                LIFE_ALIVE
            };
            self.counts.life.store(found, Ordering::SeqCst);
        }
    }

    /// Whether nothing that the guest has set up can make this vCPU run again: it was never started, or it has halted
    /// with interrupts off.
    fn is_dead(&self) -> bool {
        let Ok(state) = self.fd.get_mp_state() else {
            return false;
        };
        match state.mp_state {
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => true,
            KVM_MP_STATE_HALTED => self
                .fd
                .get_regs()
                .is_ok_and(|registers| registers.rflags & RFLAGS_IF == 0),
            _ => false,
        }
    }

    /// KVM_EXIT_SYSTEM_EVENT: 1 is a shutdown, 2 a reset, 3 a crash (KVM documentation, 5).
    fn system_event(&self, kind: u32) -> Option<End> {
        match kind {
            1 => Some(End::Halted),
            2 => Some(End::Reset),
            _ => Some(self.error(format!("the guest reported system event {kind}"))),
        }
    }

    fn error(&self, message: String) -> End {
        End::VcpuError {
            vcpu: self.index,
            message,
        }
    }
}
