use std::time::Instant;

use memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::virtio::rng::Rng;
use crate::virtio::testing::{MainLoop, PATIENCE};

/// Where the fake driver's queue lies.
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFER: u64 = 0x4000;
const READY: u32 = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;

/// A driver of the entropy device that speaks through registers alone.
struct Guest {
    mmio: Mmio,
    memory: Memory,
    main_loop: MainLoop,
}

impl Guest {
    fn new() -> Self {
        let ranges = [(GuestAddress(0), 0x10000)];
        let memory: Memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let main_loop = MainLoop::new();
        let mmio = Mmio::new(Box::new(Rng::new()), memory.clone(), main_loop.reactor()).unwrap();
        Self {
            mmio,
            memory,
            main_loop,
        }
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.mmio.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.mmio.write(offset, &value.to_le_bytes());
    }

    fn accept(&mut self, features: u64) {
        for select in 0..2 {
            self.write(DRIVER_FEATURES_SEL, select);
            self.write(DRIVER_FEATURES, (features >> (32 * select)) as u32);
        }
    }

    /// Up to FEATURES_OK.
    fn negotiate(&mut self, features: u64) {
        self.write(STATUS, STATUS_ACKNOWLEDGE);
        self.write(STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
        self.accept(features);
        self.write(STATUS, READY);
    }

    fn set_up_queue(&mut self, size: u32, descriptors: u64, available: u64, used: u64) {
        self.write(QUEUE_SEL, 0);
        self.write(QUEUE_NUM, size);
        for (low, address) in [
            (QUEUE_DESC_LOW, descriptors),
            (QUEUE_DRIVER_LOW, available),
            (QUEUE_DEVICE_LOW, used),
        ] {
            self.write(low, address as u32);
            self.write(low + 4, (address >> 32) as u32);
        }
        self.write(QUEUE_READY, 1);
    }

    fn start(&mut self) {
        self.negotiate(VERSION_1);
        self.set_up_queue(8, DESCRIPTORS, AVAILABLE, USED);
        assert_eq!(self.read(QUEUE_READY), 1);
        self.write(STATUS, READY | STATUS_DRIVER_OK);
        assert_eq!(self.read(STATUS), READY | STATUS_DRIVER_OK);
    }

    /// Makes request number `index`, of 16 bytes, available.
    fn request(&mut self, index: u16) {
        let descriptor = DESCRIPTORS + 16 * u64::from(index % 8);
        let memory = &self.memory;
        memory
            .write_obj(BUFFER + 16 * u64::from(index), GuestAddress(descriptor))
            .unwrap();
        memory
            .write_obj(16u32, GuestAddress(descriptor + 8))
            .unwrap();
        memory
            .write_obj(2u32, GuestAddress(descriptor + 12))
            .unwrap();
        memory
            .write_obj(
                index % 8,
                GuestAddress(AVAILABLE + 4 + 2 * u64::from(index % 8)),
            )
            .unwrap();
        memory
            .write_obj(index + 1, GuestAddress(AVAILABLE + 2))
            .unwrap();
    }

    fn wait_for_used(&mut self, index: u16) {
        let begun = Instant::now();
        while self.memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap() != index {
            assert!(begun.elapsed() < PATIENCE, "nothing came back");
            std::thread::yield_now();
        }
    }
}

#[test]
fn the_identity_registers_read_as_the_specification_says() {
    let mut guest = Guest::new();
    assert_eq!(guest.read(MAGIC_VALUE), MAGIC);
    assert_eq!(guest.read(VERSION), 2);
    assert_eq!(guest.read(DEVICE_ID), 4);
    assert_eq!(guest.read(QUEUE_NUM_MAX), 64);
    guest.write(QUEUE_SEL, 1);
    assert_eq!(guest.read(QUEUE_NUM_MAX), 0);
    assert_eq!(guest.read(SHM_LEN_LOW), u32::MAX);
    guest.write(DEVICE_FEATURES_SEL, 1);
    assert_eq!(guest.read(DEVICE_FEATURES), 1);
    guest.write(DEVICE_FEATURES_SEL, 2);
    assert_eq!(guest.read(DEVICE_FEATURES), 0);
}

#[test]
fn a_driver_gets_its_buffers_filled_and_an_interrupt() {
    let mut guest = Guest::new();
    guest.start();
    guest.request(0);
    guest.write(QUEUE_NOTIFY, 0);
    guest.wait_for_used(1);
    let begun = Instant::now();
    while guest.read(INTERRUPT_STATUS) != 1 {
        assert!(begun.elapsed() < PATIENCE, "no interrupt");
    }
    guest.write(INTERRUPT_ACK, 1);
    assert_eq!(guest.read(INTERRUPT_STATUS), 0);
    assert_eq!(guest.mmio.irqfd().read().unwrap(), 1);
}

#[test]
fn features_that_were_not_offered_are_refused_and_so_is_a_legacy_driver() {
    for features in [VERSION_1 | 1 << 40, VERSION_1 | 1, 0, EVENT_IDX] {
        let mut guest = Guest::new();
        guest.negotiate(features);
        assert_eq!(
            guest.read(STATUS),
            STATUS_ACKNOWLEDGE | STATUS_DRIVER,
            "{features:#x}"
        );
    }
}

#[test]
fn features_cannot_change_after_they_are_settled() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1);
    guest.accept(1 << 40);
    guest.set_up_queue(8, DESCRIPTORS, AVAILABLE, USED);
    guest.write(STATUS, READY | STATUS_DRIVER_OK);
    assert_eq!(guest.read(STATUS), READY | STATUS_DRIVER_OK);
}

#[test]
fn steps_out_of_order_are_ignored() {
    let mut guest = Guest::new();
    guest.set_up_queue(8, DESCRIPTORS, AVAILABLE, USED);
    assert_eq!(guest.read(QUEUE_READY), 0);
    guest.write(STATUS, STATUS_DRIVER_OK);
    assert_eq!(guest.read(STATUS), 0);
    guest.write(
        STATUS,
        STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK,
    );
    assert_eq!(guest.read(STATUS), STATUS_ACKNOWLEDGE | STATUS_DRIVER);
}

#[test]
fn a_queue_that_is_not_legal_never_becomes_ready() {
    for (size, descriptors, available, used) in [
        (0, DESCRIPTORS, AVAILABLE, USED),
        (3, DESCRIPTORS, AVAILABLE, USED),
        (128, DESCRIPTORS, AVAILABLE, USED),
        (0x1_0008, DESCRIPTORS, AVAILABLE, USED),
        (8, DESCRIPTORS + 1, AVAILABLE, USED),
        (8, DESCRIPTORS, AVAILABLE + 1, USED),
        (8, DESCRIPTORS, AVAILABLE, USED + 2),
        (8, 0xfff0, AVAILABLE, USED),
        (8, DESCRIPTORS, 1 << 40, USED),
        (8, DESCRIPTORS, AVAILABLE, !3),
        (8, DESCRIPTORS, 0, USED),
    ] {
        let mut guest = Guest::new();
        guest.negotiate(VERSION_1);
        guest.set_up_queue(size, descriptors, available, used);
        assert_eq!(
            guest.read(QUEUE_READY),
            0,
            "{size} {descriptors:#x} {available:#x} {used:#x}"
        );
    }
}

#[test]
fn a_queue_cannot_be_moved_once_it_is_ready_or_the_device_started() {
    let mut guest = Guest::new();
    guest.start();
    guest.write(QUEUE_READY, 0);
    guest.set_up_queue(64, 1 << 40, 1 << 40, 1 << 40);
    guest.request(0);
    guest.write(QUEUE_NOTIFY, 0);
    guest.wait_for_used(1);
    let (state, _) = guest.mmio.save();
    assert_eq!(
        (state.queues[0].size, state.queues[0].descriptors),
        (8, DESCRIPTORS)
    );
}

#[test]
fn a_reset_ends_the_work_and_the_device_can_be_started_again() {
    let mut guest = Guest::new();
    guest.start();
    guest.write(STATUS, 0);
    assert_eq!(guest.read(STATUS), 0);
    guest.request(0);
    guest.write(QUEUE_NOTIFY, 0);
    assert_eq!(guest.read(INTERRUPT_STATUS), 0);
    guest
        .memory
        .write_obj(0u16, GuestAddress(AVAILABLE + 2))
        .unwrap();
    guest.start();
    guest.request(0);
    guest.write(QUEUE_NOTIFY, 0);
    guest.wait_for_used(1);
}

#[test]
fn accesses_of_odd_sizes_and_places_do_nothing() {
    let mut guest = Guest::new();
    for len in [1, 2, 3, 8] {
        let mut data = vec![0; len];
        guest.mmio.read(MAGIC_VALUE, &mut data);
        assert_eq!(data, vec![0xff; len]);
        guest.mmio.write(STATUS, &vec![1; len]);
    }
    guest.mmio.write(STATUS + 2, &[1; 4]);
    guest.mmio.write(0xffe, &[1; 4]);
    assert_eq!(guest.read(STATUS), 0);
    guest.write(QUEUE_NOTIFY, u32::MAX);
    guest.write(QUEUE_SEL, u32::MAX);
    assert_eq!(guest.read(QUEUE_NUM_MAX), 0);
}

#[test]
fn a_device_saved_in_the_middle_of_a_queue_is_rebuilt_and_finishes_it() {
    let mut guest = Guest::new();
    guest.start();
    guest.request(0);
    guest.write(QUEUE_NOTIFY, 0);
    guest.wait_for_used(1);
    let Guest {
        mmio,
        memory,
        main_loop,
    } = guest;
    let (state, device) = mmio.save();
    assert_eq!(
        (state.queues[0].next_available, state.queues[0].next_used),
        (1, 1)
    );
    drop(device);
    let rng = Box::new(Rng::new());
    let mut mmio = Mmio::new(rng, memory.clone(), main_loop.reactor()).unwrap();
    mmio.restore(&state).unwrap();
    let mut guest = Guest {
        mmio,
        memory,
        main_loop,
    };
    guest.request(1);
    guest.write(QUEUE_NOTIFY, 0);
    guest.wait_for_used(2);
    assert_eq!(guest.read(STATUS), READY | STATUS_DRIVER_OK);
}

#[test]
fn a_state_that_is_not_of_this_device_is_refused() {
    let mut guest = Guest::new();
    guest.start();
    let (state, _) = guest.mmio.save();
    let restore = |change: fn(&mut State)| {
        let mut state = state.clone();
        change(&mut state);
        Guest::new().mmio.restore(&state)
    };
    assert!(matches!(
        restore(|s| s.version = 9),
        Err(RestoreError::Version(9))
    ));
    assert!(matches!(
        restore(|s| s.device_id = 2),
        Err(RestoreError::Device)
    ));
    assert!(matches!(
        restore(|s| s.queues.clear()),
        Err(RestoreError::Device)
    ));
    assert!(matches!(
        restore(|s| s.driver_features = 1 << 50),
        Err(RestoreError::Features(_))
    ));
    assert!(matches!(
        restore(|s| s.queues[0].used = 1 << 40),
        Err(RestoreError::Queue(0))
    ));
    assert!(matches!(
        restore(|s| s.driver_features = 0),
        Err(RestoreError::Status(_))
    ));
    assert!(matches!(
        restore(|s| s.status = STATUS_DRIVER_OK),
        Err(RestoreError::Status(STATUS_DRIVER_OK))
    ));
    // Before DRIVER_OK as well: the next write would start the device.
    assert!(matches!(
        restore(|s| (s.status, s.driver_features) = (READY, 0)),
        Err(RestoreError::Status(READY))
    ));
    assert!(restore(|_| ()).is_ok());
}
