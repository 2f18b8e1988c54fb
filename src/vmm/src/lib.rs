//! hull-vmm: one process, one VM.
//!
//! Over one socket it gets a configuration and every resource as an open descriptor; it opens no path and makes no
//! socket. `arch` has what a guest expects, `devices` what a device does; this crate performs the ioctls.
//!
//! ```text
//!  control socket --> main: epoll loop (control, devices) <----- kicks ------ KVM (ioeventfd)
//!                       |   ^                                                    |
//!                  Ended|   | end of the VM                       interrupts     v
//!                       v   |                     devices ------- (irqfd) -----> KVM
//!                    monitor   vcpu<n>: run, decode, bus
//! ```
//!
//! - [`control`]: the conversation with the monitor.  [`machine`]: where a VM is put together.
//! - [`kvm`], [`vcpu`], [`stats`]: the ioctls.  [`bus`]: what answers an access.  [`loader`]: kernel and initramfs.
//! - [`confine`]: what each thread gives up before a guest runs.
//! - [`snapshot`]: a VM saved, and begun where another was saved.
//! - [`ends`], [`halt`], [`stamps`]: why and when a VM ended, when it reached each stage.  [`probe`]: whether this KVM can boot a stock kernel.

pub mod bus;
pub mod confine;
pub mod control;
pub mod ends;
pub mod halt;
pub mod kvm;
pub mod loader;
pub mod machine;
pub mod probe;
pub mod report;
pub mod snapshot;
pub mod stamps;
pub mod stats;
pub mod vcpu;
