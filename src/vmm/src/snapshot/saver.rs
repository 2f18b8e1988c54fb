//! Collecting a VM's state from its vCPUs' threads.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, State, VcpuState};
use crate::bus::Bus;
use crate::kvm::Vm;

/// Where a VM that is to be saved is saved. Each vCPU gives its state once; the last one's thread does the rest.
pub struct Saver {
    file: File,
    vm: Arc<Vm>,
    memory_mib: u32,
    /// The model specific registers that KVM wants saved.
    pub msrs: Vec<u32>,
    progress: Mutex<Progress>,
}

struct Progress {
    vcpus: Vec<Option<VcpuState>>,
    /// Writes have been counted from there.
    rehearsed: bool,
    /// The outcome; `None` until the last vCPU has delivered.
    result: Option<Result<(), Error>>,
}

impl Saver {
    /// For a VM of so many vCPUs.
    pub fn new(file: File, vm: Arc<Vm>, memory_mib: u32, vcpus: u8, msrs: Vec<u32>) -> Self {
        let progress = Mutex::new(Progress {
            vcpus: (0..vcpus).map(|_| None).collect(),
            rehearsed: false,
            result: None,
        });
        Self {
            file,
            vm,
            memory_mib,
            msrs,
            progress,
        }
    }

    /// Starts the log of pages: what is written from now on, VMs from this snapshot will write as well.
    pub fn rehearsal_begins(&self) {
        let mut progress = self.lock();
        progress.rehearsed = true;
        if let Err(error) = self.vm.written() {
            progress.result = Some(Err(error.into()));
        }
    }

    /// Takes the state of vCPU `index`, or why there is none. The last one stops the devices on `bus` and writes the file: the
    /// main loop must run meanwhile.
    pub fn deliver(&self, index: u8, state: Result<VcpuState, Error>, bus: &Bus) {
        let mut progress = self.lock();
        match state {
            Ok(state) => progress.vcpus[usize::from(index)] = Some(state),
            Err(error) => progress.result = Some(Err(error)),
        }
        if progress.result.is_none() && progress.vcpus.iter().all(Option::is_some) {
            let vcpus = progress.vcpus.drain(..).flatten().collect();
            progress.result = Some(self.write(vcpus, progress.rehearsed, bus));
        }
    }

    /// The outcome, when the vCPUs have ended.
    pub fn result(&self) -> Result<(), Error> {
        self.lock().result.take().unwrap_or(Err(Error::Incomplete))
    }

    fn write(&self, vcpus: Vec<VcpuState>, rehearsed: bool, bus: &Bus) -> Result<(), Error> {
        let state = State {
            build: protocol::BUILD.to_owned(),
            memory_mib: self.memory_mib,
            vcpus,
            devices: bus.stop(),
            written_soon: match rehearsed {
                true => self.vm.written()?,
                false => Vec::new(),
            },
            chips: self.vm.chips()?,
        };
        state.write(&self.file)
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
