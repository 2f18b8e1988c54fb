//! Queues and chains that no driver makes, on every queue of every device.

use memory::{Bytes, GuestAddress};

use super::bus::{Bus, QUEUES, RAM, RUNNING, SIZE};
use super::subject::{ALL, Kind, Subject};
use crate::virtio::mmio::registers::*;
use crate::virtio::testing::{Buffer, INDIRECT, MainLoop, WRITE};

/// What is done to a queue of a device that runs.
type Attack = fn(&mut Bus, &Subject, usize);

/// The first buffer of a chain that this queue is for.
fn legal(bus: &mut Bus, subject: &Subject, queue: usize) -> Buffer {
    subject.legal_chain(bus, queue)[0]
}

/// A chain of one descriptor, followed by `next`.
fn followed_by(bus: &mut Bus, subject: &Subject, queue: usize, next: u16) {
    let buffer = legal(bus, subject, queue);
    bus.queues[queue].write_descriptor(0, buffer, Some(next));
    bus.queues[queue].publish(0);
}

/// A chain of one buffer at a place of its own.
fn buffer_at(bus: &mut Bus, subject: &Subject, queue: usize, address: u64, len: u32) {
    let Buffer { flags, .. } = legal(bus, subject, queue);
    let buffer = Buffer {
        address,
        len,
        flags,
    };
    bus.queues[queue].add(&[buffer]);
}

fn indirect(bus: &mut Bus, queue: usize, address: u64, len: u32) {
    let table = Buffer {
        address,
        len,
        flags: INDIRECT,
    };
    bus.queues[queue].add(&[table]);
}

/// An indirect table of legal buffers, the last of which is followed by `next`.
fn indirect_followed_by(bus: &mut Bus, subject: &Subject, queue: usize, next: u16) {
    let chain = subject.legal_chain(bus, queue);
    let table = bus.readable(&[0; 16 * 4]).address;
    bus.queues[queue].add_indirect(table, &chain);
    let last = table + 16 * (chain.len() as u64 - 1);
    let flags = chain.last().unwrap().flags | 1;
    let memory = &bus.memory;
    memory.write_obj(flags, GuestAddress(last + 12)).unwrap();
    memory.write_obj(next, GuestAddress(last + 14)).unwrap();
}

fn turned(buffer: Buffer) -> Buffer {
    Buffer {
        flags: buffer.flags ^ WRITE,
        ..buffer
    }
}

/// What must mark the device as needing a reset.
const FAULTS: &[(&str, Attack)] = &[
    ("a descriptor that follows itself", |b, s, q| {
        followed_by(b, s, q, 0)
    }),
    ("a next descriptor right behind the table", |b, s, q| {
        followed_by(b, s, q, SIZE)
    }),
    ("the last next descriptor that there can be", |b, s, q| {
        followed_by(b, s, q, u16::MAX)
    }),
    ("two descriptors that follow each other", |b, s, q| {
        let buffer = legal(b, s, q);
        b.queues[q].write_descriptor(1, buffer, Some(0));
        followed_by(b, s, q, 1);
    }),
    ("a head right behind the table", |b, _, q| {
        b.queues[q].publish(SIZE)
    }),
    ("the last head that there can be", |b, _, q| {
        b.queues[q].publish(u16::MAX)
    }),
    ("a buffer behind the end of memory", |b, s, q| {
        buffer_at(b, s, q, RAM, 64)
    }),
    ("a buffer whose last byte is outside", |b, s, q| {
        buffer_at(b, s, q, RAM - 63, 64)
    }),
    ("a buffer in a device's window", |b, s, q| {
        buffer_at(b, s, q, 0xd000_0000, 64)
    }),
    ("a buffer at the end of all addresses", |b, s, q| {
        buffer_at(b, s, q, u64::MAX, 1)
    }),
    ("an address and a length that overflow", |b, s, q| {
        buffer_at(b, s, q, u64::MAX - 7, 64)
    }),
    ("a length of 4 GiB less one", |b, s, q| {
        buffer_at(b, s, q, 0, u32::MAX)
    }),
    ("a buffer without bytes", |b, s, q| {
        buffer_at(b, s, q, 0x1000, 0)
    }),
    ("every buffer of the other direction", |b, s, q| {
        let chain: Vec<_> = s.legal_chain(b, q).into_iter().map(turned).collect();
        b.queues[q].add(&chain);
    }),
    ("a readable buffer behind a writable one", |b, _, q| {
        let chain = [b.writable(64), b.readable(&[0; 64])];
        b.queues[q].add(&chain);
    }),
    ("an available index one too far", |b, _, q| {
        b.queues[q].set_avail_index(SIZE + 1)
    }),
    ("an available index half way round", |b, _, q| {
        b.queues[q].set_avail_index(0x8000)
    }),
    ("an available index that goes back", |b, _, q| {
        b.queues[q].set_avail_index(u16::MAX)
    }),
    ("an indirect table behind the end of memory", |b, _, q| {
        indirect(b, q, RAM, 32)
    }),
    ("an indirect table in a device's window", |b, _, q| {
        indirect(b, q, 0xd000_0000, 32)
    }),
    (
        "an indirect table at the end of all addresses",
        |b, _, q| indirect(b, q, !15, 32),
    ),
    ("an indirect table without descriptors", |b, _, q| {
        indirect(b, q, QUEUES, 0)
    }),
    ("an indirect table of half a descriptor", |b, _, q| {
        indirect(b, q, QUEUES, 8)
    }),
    ("an indirect table of an odd length", |b, _, q| {
        indirect(b, q, QUEUES, 17)
    }),
    ("an indirect table of almost 4 GiB", |b, _, q| {
        indirect(b, q, QUEUES, 0xffff_fff0)
    }),
    ("an indirect table that runs out of memory", |b, s, q| {
        let mut buffer = legal(b, s, q);
        buffer.flags |= 1; // another follows, behind the end of memory
        let address = GuestAddress(RAM - 16);
        b.memory.write_obj(buffer.address, address).unwrap();
        b.memory
            .write_obj(buffer.len, GuestAddress(RAM - 8))
            .unwrap();
        b.memory
            .write_obj(u32::from(buffer.flags) | 1 << 16, GuestAddress(RAM - 4))
            .unwrap();
        indirect(b, q, RAM - 16, 32);
    }),
    ("an indirect table in an indirect table", |b, _, q| {
        let table = b.readable(&[0; 32]).address;
        let inner = Buffer {
            address: table,
            len: 32,
            flags: INDIRECT,
        };
        b.queues[q].add_indirect(table, &[inner, inner]);
    }),
    ("an indirect descriptor that follows itself", |b, s, q| {
        let last = s.legal_chain(b, q).len() as u16 - 1;
        indirect_followed_by(b, s, q, last);
    }),
    ("an indirect chain that leaves its table", |b, s, q| {
        indirect_followed_by(b, s, q, 4)
    }),
    (
        "a legal chain behind a thousand empty descriptors",
        |b, s, q| {
            const EMPTY: u16 = 1000;
            let chain = s.legal_chain(b, q);
            let empty = Buffer { len: 0, ..chain[0] };
            let mut long = vec![empty; EMPTY.into()];
            long.extend(&chain);
            let table = b.readable(&vec![0; 16 * long.len()]).address;
            b.queues[q].add_indirect(table, &long);
        },
    ),
];

/// What is the guest's own loss: a device may take it or find fault with it, and works again after a reset.
const FOLLIES: &[(&str, Attack)] = &[
    ("a buffer over its own descriptors", |b, s, q| {
        buffer_at(b, s, q, Bus::rings(q)[0], 0x100)
    }),
    ("a buffer over the available ring", |b, s, q| {
        buffer_at(b, s, q, Bus::rings(q)[1], 0x100)
    }),
    ("a buffer over the used ring", |b, s, q| {
        buffer_at(b, s, q, Bus::rings(q)[2], 0x100)
    }),
    ("a buffer that is all of memory", |b, s, q| {
        buffer_at(b, s, q, 0, RAM as u32)
    }),
    ("a buffer that ends where memory does", |b, s, q| {
        buffer_at(b, s, q, RAM - 64, 64)
    }),
    ("a buffer over the border of two regions", |b, s, q| {
        buffer_at(b, s, q, RAM / 2 - 5, 64)
    }),
    ("an indirect table over the queue", |b, _, q| {
        indirect(b, q, Bus::rings(q)[0], 256)
    }),
    ("one chain three times at once", |b, s, q| {
        let chain = s.legal_chain(b, q);
        let head = b.queues[q].add(&chain);
        b.queues[q].publish(head);
        b.queues[q].publish(head);
    }),
    ("a full queue of one chain", |b, s, q| {
        let chain = s.legal_chain(b, q);
        let head = b.queues[q].add(&chain);
        (1..SIZE).for_each(|_| b.queues[q].publish(head));
    }),
    ("buffers without bytes among others", |b, s, q| {
        let mut chain = s.legal_chain(b, q);
        chain.insert(0, Buffer { len: 0, ..chain[0] });
        let last = chain[chain.len() - 1];
        chain.push(Buffer { len: 0, ..last });
        b.queues[q].add(&chain);
    }),
    ("two queues on the same rings", |b, s, q| {
        b.write(STATUS, 0);
        let features = b.offered();
        b.negotiate(features);
        for index in 0..s.queues.len() {
            b.set_up_queue(index, SIZE.into(), Bus::rings(q));
        }
        b.write(STATUS, RUNNING);
        let chain = s.legal_chain(b, q);
        b.queues[q].add(&chain);
        (0..s.queues.len()).for_each(|index| b.notify(index));
    }),
    ("rings that lie on each other", |b, s, q| {
        b.write(STATUS, 0);
        let features = b.offered();
        b.negotiate(features);
        let [table, ..] = Bus::rings(q);
        assert!(b.set_up_queue(q, SIZE.into(), [table; 3]));
        b.write(STATUS, RUNNING);
        let chain = s.legal_chain(b, q);
        b.queues[q].add(&chain);
        b.memory.write_obj(1u16, GuestAddress(table + 2)).unwrap();
    }),
];

/// Does each of these to every queue that its device looks at. A bystander on the same main loop must not notice, and after
/// a reset the device works.
fn on_every_queue(attacks: &[(&str, Attack)], expect_fault: bool) {
    let main_loop = MainLoop::new();
    let [.., make_rng, _] = ALL;
    let (device, mut bystander) = make_rng();
    let mut beside = Bus::new(device, &main_loop);
    beside.start();
    for make in ALL {
        let (device, mut subject) = make();
        let mut bus = Bus::new(device, &main_loop);
        for queue in 0..subject.queues.len() {
            if subject.queues[queue] == Kind::Idle {
                continue;
            }
            for (attack, act) in attacks {
                let what = format!("{}, queue {queue}: {attack}", subject.name);
                bus.start();
                act(&mut bus, &subject, queue);
                subject.provoke(&mut bus, queue);
                if expect_fault {
                    bus.wait_for_fault(&what);
                    assert_eq!(bus.queues[queue].next_used(), None, "{what}");
                    // What comes now is not looked at, on none of its queues.
                    for other in 0..subject.queues.len() {
                        let chain = subject.legal_chain(&mut bus, other);
                        bus.queues[other].add(&chain);
                        subject.provoke(&mut bus, other);
                    }
                }
                beside.start();
                bystander.works(&mut beside);
                if expect_fault {
                    assert!(bus.needs_reset(), "{what}");
                    assert_eq!(bus.queues[queue].next_used(), None, "{what}");
                }
                bus.start();
                subject.works(&mut bus);
            }
        }
    }
}

#[test]
fn every_malformed_queue_or_chain_marks_its_device_and_no_other() {
    on_every_queue(FAULTS, true);
}

#[test]
fn what_a_guest_does_to_its_own_memory_harms_no_device_for_good() {
    on_every_queue(FOLLIES, false);
}
