//! Registers and bits, by their names in the specification (virtio 1.2).

// Offsets in a device's window (4.2.2).
/// Reads as [`MAGIC`].
pub const MAGIC_VALUE: u64 = 0x000;
/// Reads as 2.
pub const VERSION: u64 = 0x004;
/// The device's type.
pub const DEVICE_ID: u64 = 0x008;
/// Reads as [`VENDOR`].
pub const VENDOR_ID: u64 = 0x00c;
/// 32 of the features offered.
pub const DEVICE_FEATURES: u64 = 0x010;
/// Which 32.
pub const DEVICE_FEATURES_SEL: u64 = 0x014;
/// 32 of the features accepted.
pub const DRIVER_FEATURES: u64 = 0x020;
/// Which 32.
pub const DRIVER_FEATURES_SEL: u64 = 0x024;
/// Which queue the queue registers mean.
pub const QUEUE_SEL: u64 = 0x030;
/// The queue's largest size.
pub const QUEUE_NUM_MAX: u64 = 0x034;
/// The queue's size.
pub const QUEUE_NUM: u64 = 0x038;
/// Whether the queue is in use.
pub const QUEUE_READY: u64 = 0x044;
/// The number of a queue with new buffers.
pub const QUEUE_NOTIFY: u64 = 0x050;
/// Why the device interrupts.
pub const INTERRUPT_STATUS: u64 = 0x060;
/// The causes that the driver has seen.
pub const INTERRUPT_ACK: u64 = 0x064;
/// The cause that buffers were used.
pub const INTERRUPT_USED_BUFFER: u32 = crate::virtio::interrupt::USED_BUFFER;
/// The device status.
pub const STATUS: u64 = 0x070;
/// Descriptor table.
pub const QUEUE_DESC_LOW: u64 = 0x080;
/// Its upper half.
pub const QUEUE_DESC_HIGH: u64 = 0x084;
/// Available ring.
pub const QUEUE_DRIVER_LOW: u64 = 0x090;
/// Its upper half.
pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
/// Used ring.
pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
/// Its upper half.
pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
/// Length of the selected shared memory region: all ones, there is none.
pub const SHM_LEN_LOW: u64 = 0x0b0;
/// Its upper half.
pub const SHM_LEN_HIGH: u64 = 0x0b4;
/// Its address.
pub const SHM_BASE_LOW: u64 = 0x0b8;
/// Its upper half.
pub const SHM_BASE_HIGH: u64 = 0x0bc;
/// Changes with the configuration space.
pub const CONFIG_GENERATION: u64 = 0x0fc;
/// Where the configuration space begins.
pub const CONFIG: u64 = 0x100;

/// "virt"
pub const MAGIC: u32 = 0x7472_6976;
/// "HULL"
pub const VENDOR: u32 = 0x4c4c_5548;

// Device status (2.1).
/// The guest has noticed the device.
pub const STATUS_ACKNOWLEDGE: u32 = 1;
/// The guest has a driver for it.
pub const STATUS_DRIVER: u32 = 2;
/// The driver is ready.
pub const STATUS_DRIVER_OK: u32 = 4;
/// The features are settled.
pub const STATUS_FEATURES_OK: u32 = 8;
/// The device cannot go on.
pub const STATUS_NEEDS_RESET: u32 = 64;
/// The driver has given up.
pub const STATUS_FAILED: u32 = 128;

// Features of the transport (6).
/// A descriptor may point to a table of descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// Kicks and interrupts by index.
pub const EVENT_IDX: u64 = 1 << 29;
/// The device follows the specification, not its drafts. Must be accepted.
pub const VERSION_1: u64 = 1 << 32;
/// What the transport offers for every device.
pub const TRANSPORT_FEATURES: u64 = VERSION_1 | EVENT_IDX | INDIRECT_DESC;
