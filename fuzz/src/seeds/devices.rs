//! What guests do.

use super::Seeds;
use crate::guest::op;

/// An input that grows.
#[derive(Default, Clone)]
struct Seed(Vec<u8>);

impl Seed {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// A device's own first bytes, and a driver that takes every feature and the largest queues.
    fn driver(first: &[u8]) -> Self {
        Self::default()
            .bytes(first)
            .bytes(&[0xff, 0xff, 0xff, 0xff, 0])
    }

    fn op(self, code: u8, fields: &[u8]) -> Self {
        self.bytes(&[code]).bytes(fields)
    }

    /// A chain of a readable piece, room, and a piece across the border of two regions.
    fn chain(self, code: u8, queue: u8) -> Self {
        self.op(code, &[queue, 3])
            .bytes(&[0, 5])
            .bytes(b"hello")
            .bytes(&[3, 0x40, 0])
            .bytes(&[7, 0x10])
            .bytes(&[0x20])
            .op(op::KICK, &[queue])
    }

    fn broken(self, queue: u8) -> Self {
        // A loop, an index outside of the table, and an available index that is impossible.
        self.op(op::DESCRIPTOR, &[queue, 0])
            .bytes(&[0, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0])
            .op(op::DESCRIPTOR, &[queue, 1])
            .bytes(&[0, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0xff, 0xff])
            .op(op::AVAILABLE, &[queue, 1, 0])
            .op(op::KICK, &[queue])
            .op(op::AVAILABLE, &[queue, 0, 0x80])
            .op(op::KICK, &[queue])
            .op(op::READ, &[0x70, 0])
            .op(op::BRING_UP, &[0xff, 0xff, 0xff, 0xff, 2])
    }

    fn saved(self) -> Self {
        self.op(op::SAVE, &[0])
            .op(op::SAVE, &[1, 0, 9])
            .bytes(&7u64.to_le_bytes())
    }
}

pub(super) fn all() -> Seeds {
    let queues = |first: &[u8], queue: u8| {
        [
            Seed::driver(first)
                .chain(op::CHAIN, queue)
                .chain(op::INDIRECT, queue),
            Seed::driver(first)
                .chain(op::CHAIN, queue)
                .broken(queue)
                .chain(op::CHAIN, queue),
            Seed::driver(first)
                .chain(op::CHAIN, queue)
                .saved()
                .chain(op::CHAIN, queue),
        ]
    };
    let request = |kind: u8, sector: u16| {
        let [low, high] = sector.to_le_bytes();
        vec![kind, low, high]
    };
    let range = |sector: u64, sectors: u32, flags: u32| {
        [
            &sector.to_le_bytes()[..],
            &sectors.to_le_bytes(),
            &flags.to_le_bytes(),
        ]
        .concat()
    };
    let mut blk: Vec<Seed> = queues(&[0], 0).into();
    for kind in [0, 1] {
        let seed = Seed::driver(&[kind])
            .op(op::REQUEST, &[&request(1, 3)[..], &[0, 4]].concat())
            .op(op::REQUEST, &[&request(0, 3)[..], &[0, 4]].concat())
            .op(op::REQUEST, &[&request(4, 0)[..], &[0]].concat())
            .op(op::REQUEST, &[&request(8, 0)[..], &[20, 0]].concat())
            .op(
                op::REQUEST,
                &[&request(11, 0)[..], &[16], &range(1, 2, 0)].concat(),
            )
            .op(
                op::REQUEST,
                &[&request(13, 0)[..], &[16], &range(5, 9, 1)].concat(),
            )
            .op(op::HOST, &[0])
            .op(op::REQUEST, &[&request(0, 0x3f)[..], &[0, 0x20]].concat())
            .op(
                op::REQUEST,
                &[&request(0x80, 0)[..], &[0xff; 8], &[0, 2]].concat(),
            );
        blk.push(seed);
    }
    let mut net: Vec<Seed> = queues(&[1], 1).into();
    net.push(
        Seed::driver(&[1])
            .op(op::BUFFERS, &[0, 8, 0, 6])
            .op(op::HOST, &[1, 0x40, 0])
            .op(op::HOST, &[1, 0, 0x30])
            .op(op::HOST, &[2, 100, 0, 20])
            .op(op::BUFFERS, &[0, 40, 50, 0])
            .op(op::REQUEST, &[1, 1, 200, 0])
            .op(op::HOST, &[0])
            .op(op::HOST, &[4, 2])
            .op(op::REQUEST, &[1, 1, 200, 0]),
    );
    let packet =
        |op: u8, payload: &[u8]| [&[0, op, 1, 0, payload.len() as u8][..], payload].concat();
    let mut vsock: Vec<Seed> = queues(&[], 1).into();
    vsock.push(
        Seed::driver(&[])
            .op(op::BUFFERS, &[0, 16, 0, 16])
            .op(op::REQUEST, &packet(1, b""))
            .op(op::REQUEST, &packet(5, b"data"))
            .op(op::HOST, &[1, 0])
            .op(op::HOST, &[2, 0, 0, 16])
            .op(op::REQUEST, &packet(7, b""))
            .op(op::REQUEST, &packet(6, b""))
            .op(op::HOST, &[5, 0])
            .op(op::REQUEST, &[8, 4, 1, 0, 0, 3]),
    );
    vsock.push(
        Seed::driver(&[])
            .op(op::BUFFERS, &[0, 16, 0, 16])
            .op(op::BUFFERS, &[2, 2, 4, 0])
            .op(op::REQUEST, &packet(1, b""))
            .op(op::SAVE, &[0])
            .op(op::HOST, &[0, 1])
            .op(op::REQUEST, &packet(3, b""))
            .op(op::HOST, &[6, 0]),
    );
    let mut virtiofs: Vec<Seed> = queues(&[], 1).into();
    let mounted = Seed::driver(&[]).op(op::REQUEST, &[0, 1]);
    let file = mounted
        .clone()
        .op(op::REQUEST, &[2, 2])
        .op(op::REQUEST, &[2, 3])
        .op(op::REQUEST, &[3, 4, 1, 10, 0, 0, 4])
        .op(op::REQUEST, &[4, 4, 2, 10, 0, 0, 4])
        .op(op::REQUEST, &[3, 4, 2, 0, 0, 0, 4]);
    virtiofs.push(
        file.clone()
            .op(op::REQUEST, &[0x23, 4, 2])
            .bytes(&[0xff; 8])
            .bytes(&[0, 0, 1, 0])
            .op(op::REQUEST, &[5, 5, 2])
            .op(op::REQUEST, &[3, 4, 2, 0, 0, 0, 4])
            .op(op::REQUEST, &[7, 6, 1, b'n'])
            .op(op::REQUEST, &[9, 7])
            .op(op::REQUEST, &[2, 8])
            .op(op::REQUEST, &[0x16, 9])
            .op(op::REQUEST, &[10, 9])
            .op(op::REQUEST, &[8, 10]),
    );
    for lie in 1..12 {
        virtiofs.push(
            file.clone()
                .op(op::HOST, &[5, 3, lie, lie + 12, lie + 24])
                .op(op::REQUEST, &[1, 5, 1, b'n'])
                .op(op::REQUEST, &[2, 6])
                .op(op::REQUEST, &[7, 7, 1, b'n'])
                .op(op::HOST, &[2])
                .op(op::REQUEST, &[3, 4, 4, 0, 0, 0, 4]),
        );
    }
    virtiofs.push(
        file.saved()
            .op(op::REQUEST, &[0, 1])
            .op(op::HOST, &[5, 1, 11])
            .op(op::REQUEST, &[1, 5, 1, b'n'])
            .op(op::BRING_UP, &[0xff, 0xff, 0xff, 0xff, 0])
            .op(op::REQUEST, &[0, 5])
            .op(op::HOST, &[0])
            .op(op::REQUEST, &[1, 5, 1, b'n'])
            .op(op::HOST, &[1])
            .op(op::REQUEST, &[0, 5])
            .op(op::HOST, &[3, 2, 1, 2, 1]),
    );
    let rng: Vec<Seed> = queues(&[], 0).into();
    let mut console: Vec<Seed> = queues(&[], 1).into();
    console.push(
        Seed::driver(&[])
            .op(op::CHAIN, &[1, 1, 0, 4, b'a', b'\n', b'b', b'\n'])
            .op(op::KICK, &[1])
            .op(op::HOST, &[9, 0]),
    );
    let mut mmio: Vec<Seed> = queues(&[], 0).into();
    mmio.push(
        Seed::driver(&[])
            .op(op::WRITE, &[0x70 / 4, 0, 0, 0, 0])
            .op(op::WRITE, &[0x70 / 4, 3, 0, 0, 0])
            .op(op::WRITE, &[0x24 / 4, 1, 0, 0, 0])
            .op(op::WRITE, &[0x20 / 4, 1, 0, 0, 0])
            .op(op::WRITE, &[0x70 / 4, 11, 0, 0, 0])
            .op(op::WRITE, &[0x30 / 4, 2, 0, 0, 0])
            .op(op::WRITE, &[0x38 / 4, 1, 0, 0, 0])
            .op(op::WRITE, &[0x90 / 4, 0, 0x10, 0, 0])
            .op(op::WRITE, &[0x44 / 4, 1, 0, 0, 0])
            .op(op::WRITE, &[0x70 / 4, 15, 0, 0, 0])
            .op(op::ACCESS, &[0, 1, 1, 2, 3])
            .op(op::READ, &[0xfc, 0]),
    );
    let seeds = |seeds: Vec<Seed>| seeds.into_iter().map(|seed| seed.0).collect();
    vec![
        ("blk", seeds(blk)),
        ("net", seeds(net)),
        ("vsock", seeds(vsock)),
        ("virtiofs", seeds(virtiofs)),
        ("rng", seeds(rng)),
        ("console", seeds(console)),
        ("mmio", seeds(mmio)),
        (
            "bus",
            vec![vec![
                1, 3, 0x80, 1, 0, b'x', 0, 5, 9, 4, 0xfe, 0x15, 4, 1, 0, 0, 0, 0x34, 0, 0x20, 0, 0,
                0, 0, 0, 0, 0, 0,
            ]],
        ),
        (
            "segments",
            vec![vec![
                0, 0, 0, 9, 1, 0, 1, 200, 5, 7, 0, 7, 3, 0, 4, 2, 0, 2, 1, 0, 3, 100, 0, 6, 50, 0,
            ]],
        ),
    ]
}
