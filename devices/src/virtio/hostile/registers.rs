//! Registers in any order, of any width, at any time, on every device.

use proptest::prelude::*;

use super::bus::{Bus, QUEUES, RAM, RUNNING};
use super::subject::{ALL, Subject};
use crate::virtio::mmio::registers::*;
use crate::virtio::testing::MainLoop;
use memory::{Bytes, GuestAddress};

/// Runs `test` on a fresh device of each kind; then the device is reset, and works.
fn on_every_device(mut test: impl FnMut(&mut Bus, &mut Subject)) {
    let main_loop = MainLoop::new();
    for make in ALL {
        let (device, mut subject) = make();
        let mut bus = Bus::new(device, &main_loop);
        test(&mut bus, &mut subject);
        bus.start();
        subject.works(&mut bus);
    }
}

const BEFORE_FEATURES: u32 = STATUS_ACKNOWLEDGE | STATUS_DRIVER;

#[test]
fn rings_that_are_not_legal_never_become_ready() {
    on_every_device(|bus, subject| {
        let features = bus.offered();
        bus.negotiate(features);
        for queue in 0..subject.queues.len() {
            let [table, available, used] = Bus::rings(queue);
            let size = u32::from(bus.sizes[queue]);
            // Lengths of the rings (2.7).
            let [table_len, available_len, used_len] =
                [(16, 0), (2, 6), (8, 6)].map(|(each, more)| each * u64::from(size) + more);
            for (size, addresses) in [
                (0, [table, available, used]),
                (3, [table, available, used]),
                (1 << 15, [table, available, used]),
                (0x1_0000 + size, [table, available, used]),
                (u32::MAX, [table, available, used]),
                (size, [table + 8, available, used]),
                (size, [table, available + 1, used]),
                (size, [table, available, used + 2]),
                (size, [RAM - table_len + 16, available, used]),
                (size, [RAM, available, used]),
                (size, [0xd000_0000, available, used]),
                (size, [table, RAM - available_len + 2, used]),
                (size, [table, u64::MAX - 1, used]),
                (size, [table, 0, used]),
                (size, [table, available, RAM - used_len + 2]),
                (size, [table, available, 0xd000_0000]),
                (size, [!15, !1, !3]),
            ] {
                let taken = bus.set_up_queue(queue, size, addresses);
                assert!(!taken, "{} {queue} {size} {addresses:x?}", subject.name);
            }
            assert!(bus.set_up_queue(queue, size, [RAM - table_len, available, used]));
        }
    });
}

#[test]
fn steps_out_of_order_and_features_that_were_not_offered_start_nothing() {
    on_every_device(|bus, subject| {
        let offered = bus.offered();
        // DRIVER_OK without anything, without features, before features.
        bus.write(STATUS, STATUS_DRIVER_OK);
        assert_eq!(bus.read(STATUS), 0);
        bus.write(STATUS, RUNNING & !STATUS_FEATURES_OK);
        assert_eq!(bus.read(STATUS), BEFORE_FEATURES, "{}", subject.name);
        bus.write(STATUS, 0);
        for features in [
            0,
            offered & !VERSION_1,
            offered | 1 << 40,
            u64::MAX,
            1 << 63,
        ] {
            bus.write(STATUS, 0);
            bus.negotiate(features);
            assert_eq!(bus.read(STATUS), BEFORE_FEATURES, "{features:#x}");
        }
        // Bits that only the device sets, and those of no meaning.
        bus.write(STATUS, 0);
        bus.write(STATUS, STATUS_NEEDS_RESET | 0xffff_ff30);
        assert_eq!(bus.read(STATUS), 0);
    });
}

#[test]
fn a_device_without_queues_starts_and_does_nothing() {
    on_every_device(|bus, subject| {
        let features = bus.offered();
        bus.negotiate(features);
        bus.write(STATUS, RUNNING);
        for queue in 0..subject.queues.len() {
            subject.provoke(bus, queue);
        }
        assert_eq!(bus.read(STATUS), RUNNING, "{}", subject.name);
    });
}

#[test]
fn a_queue_cannot_be_moved_while_the_device_runs() {
    on_every_device(|bus, subject| {
        bus.start();
        for queue in 0..subject.queues.len() {
            bus.write(QUEUE_SEL, queue as u32);
            bus.write(QUEUE_READY, 0);
            assert_eq!(bus.read(QUEUE_READY), 1);
            for addresses in [[0; 3], [RAM; 3], [!15; 3], Bus::rings(7)] {
                bus.set_up_queue(queue, 1 << 15, addresses);
            }
        }
        bus.write(STATUS, RUNNING);
        bus.negotiate(u64::MAX);
        assert_eq!(bus.read(STATUS), RUNNING, "{}", subject.name);
        subject.works(bus);
    });
}

#[test]
fn the_configuration_can_be_read_and_written_anyhow() {
    on_every_device(|bus, subject| {
        let mut before = [0; 64];
        bus.mmio.read(CONFIG, &mut before);
        for len in 0..=16 {
            let mut data = vec![0xaa; len];
            for offset in (CONFIG..CONFIG + 80).chain([0xff8, 0xfff, 0x1_0000, u64::MAX - 16]) {
                bus.mmio.read(offset, &mut data);
                bus.mmio.write(offset, &vec![0x55; len]);
            }
        }
        let mut after = [0; 64];
        bus.mmio.read(CONFIG, &mut after);
        assert_eq!(before, after, "{}", subject.name);
    });
}

#[test]
fn a_storm_of_notifications_holds_nobody_up() {
    on_every_device(|bus, subject| {
        bus.start();
        for round in 0..5_000 {
            bus.write(QUEUE_NOTIFY, round % 5);
            bus.write(QUEUE_NOTIFY, u32::MAX - round);
        }
        subject.works(bus);
    });
}

#[test]
fn a_reset_with_work_in_flight_ends_it_before_the_register_is_written() {
    on_every_device(|bus, subject| {
        for round in 0..50 {
            bus.start();
            for queue in 0..subject.queues.len() {
                for _ in 0..4 {
                    let chain = subject.legal_chain(bus, queue);
                    bus.queues[queue].add(&chain);
                }
                subject.provoke(bus, queue);
            }
            if round % 3 == 0 {
                std::thread::yield_now();
            }
            bus.write(STATUS, 0);
            // Whatever was in flight has been finished or left: nothing is written from here on.
            let mut seen = vec![0; 0x2000];
            bus.memory
                .read_slice(&mut seen, GuestAddress(QUEUES))
                .unwrap();
            std::thread::yield_now();
            let mut again = vec![0; 0x2000];
            bus.memory
                .read_slice(&mut again, GuestAddress(QUEUES))
                .unwrap();
            assert!(seen == again, "{} wrote after its reset", subject.name);
        }
    });
}

/// One thing that a vCPU does.
#[derive(Debug, Clone)]
enum Step {
    Read {
        offset: u64,
        len: usize,
    },
    Write {
        offset: u64,
        len: usize,
        value: u64,
    },
    /// Into the queues' pages.
    Poke {
        at: u64,
        value: u32,
    },
    /// A whole, legal start.
    Start,
    /// A legal chain, and its notification.
    Submit {
        queue: usize,
    },
}

const REGISTERS: [u64; 24] = [
    DEVICE_FEATURES_SEL,
    DRIVER_FEATURES,
    DRIVER_FEATURES_SEL,
    QUEUE_SEL,
    QUEUE_NUM,
    QUEUE_READY,
    QUEUE_NOTIFY,
    INTERRUPT_ACK,
    STATUS,
    STATUS,
    STATUS,
    STATUS,
    QUEUE_DESC_LOW,
    QUEUE_DESC_HIGH,
    QUEUE_DRIVER_LOW,
    QUEUE_DRIVER_HIGH,
    QUEUE_DEVICE_LOW,
    QUEUE_DEVICE_HIGH,
    QUEUE_NOTIFY,
    QUEUE_NOTIFY,
    CONFIG,
    CONFIG + 0xc,
    MAGIC_VALUE,
    INTERRUPT_STATUS,
];

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![8 => prop::sample::select(&REGISTERS[..]), 1 => 0..0x1100u64, 1 => any::<u64>()]
}

fn width() -> impl Strategy<Value = usize> {
    prop_oneof![8 => Just(4usize), 1 => prop::sample::select(&[1usize, 2, 8][..]), 1 => 0..=64usize]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..20u64,
        3 => prop::sample::select(&[1u64, 3, 11, 15, 0, 64, 128, 143][..]),
        3 => (0..8u64, 0..16u64).prop_map(|(page, slot)| 0x1000 * page + 0x100 * slot),
        1 => RAM - 0x1000..RAM + 0x1000,
        1 => any::<u64>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (offset(), width()).prop_map(|(offset, len)| Step::Read { offset, len }),
        8 => (offset(), width(), value())
            .prop_map(|(offset, len, value)| Step::Write { offset, len, value }),
        4 => (0..0xc00u64, value())
            .prop_map(|(word, value)| Step::Poke { at: QUEUES + 4 * word, value: value as u32 }),
        1 => Just(Step::Start),
        3 => (0..3usize).prop_map(|queue| Step::Submit { queue }),
    ]
}

fn take(step: &Step, bus: &mut Bus, subject: &Subject) {
    match *step {
        Step::Read { offset, len } => bus.mmio.read(offset, &mut vec![0; len]),
        Step::Write { offset, len, value } => {
            let bytes = value.to_le_bytes().repeat(8);
            bus.mmio.write(offset, &bytes[..len]);
        }
        Step::Poke { at, value } => bus.memory.write_obj(value, GuestAddress(at)).unwrap(),
        Step::Start => bus.start(),
        Step::Submit { queue } if queue < subject.queues.len() => {
            let chain = subject.legal_chain(bus, queue);
            bus.queues[queue].add(&chain);
            subject.provoke(bus, queue);
        }
        Step::Submit { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_accesses_leaves_a_device_that_a_reset_mends(
        steps in prop::collection::vec(step(), 1..150)
    ) {
        on_every_device(|bus, subject| {
            for step in &steps {
                take(step, bus, subject);
            }
        });
    }
}
