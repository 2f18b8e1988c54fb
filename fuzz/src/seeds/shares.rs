//! Seeds for hull-fs.

use super::Seeds;

/// How arguments are completed: see `shares.rs`.
const HANDLE: u8 = 1;
const NODE: u8 = 2;
const NODE_AT_16: u8 = 4;
const HANDLE_AT_24: u8 = 8;

/// Nodes by their place: the root, none, the share, the single file, then what is looked up or made.
const SHARE: u8 = 2;
const SINGLE: u8 = 3;
const NEW: u8 = 4;

/// A step, by the operation's place in the target's list.
fn step(op: u8, node: u8, how: u8, which: u8, body: &[u8]) -> Vec<u8> {
    [&[op, node, how, which, body.len() as u8][..], body].concat()
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|it| it.to_le_bytes()).collect()
}

fn named(head: &[u32], names: &[u8]) -> Vec<u8> {
    [&numbers(head)[..], names].concat()
}

fn look_up(node: u8, name: &[u8]) -> Vec<u8> {
    step(0, node, 0, 0, name)
}

pub(super) fn all() -> Seeds {
    let create = |name: &[u8]| step(27, SHARE, 0, 0, &named(&[0o102, 0o644, 0, 0], name));
    let zeros = |count: usize| vec![0; count];
    let files = [
        create(b"new\0"),
        step(3, NEW, 0, 0, &[numbers(&[0x1b9, 0]), zeros(80)].concat()),
        step(
            30,
            NEW,
            HANDLE,
            1,
            &named(&[0, 0, 0, 0, 4096, 0, 0, 0], b""),
        ),
        step(33, NEW, HANDLE, 1, &numbers(&[0, 0, 0, 0, 4, 0])),
        step(15, NEW, HANDLE, 1, &zeros(16)),
        step(20, NEW, HANDLE, 1, &zeros(24)),
        create(b"to\0"),
        step(
            34,
            NEW,
            HANDLE | NODE_AT_16 | HANDLE_AT_24,
            NEW,
            &[zeros(32), numbers(&[2048, 0, 99, 0, 0, 0])].concat(),
        ),
        step(14, NEW, HANDLE, 1, &zeros(24)),
        step(1, NEW, 0, 0, &numbers(&[1, 0])),
        step(29, 0, 0, 0, &[numbers(&[1, 0]), zeros(16)].concat()),
        step(35, SHARE, 0, 0, &named(&[0o102, 0o600, 0, 0], b"/\0")),
        step(11, SHARE, NODE, 6, &named(&[0, 0], b"named\0")),
        step(12, NEW, 0, 0, &numbers(&[2, 0])),
    ];
    let names = [
        look_up(SHARE, b"out\0"),
        step(4, NEW, 0, 0, b""),
        look_up(NEW, b"secret\0"),
        look_up(SHARE, b"d\0"),
        look_up(5, b"..\0"),
        look_up(5, b"f\0"),
        step(7, 5, 0, 0, &named(&[0o755, 0], b"made\0")),
        step(5, SHARE, 0, 0, b"link\0../../etc\0"),
        step(6, SHARE, 0, 0, &named(&[0o010_644, 0, 0, 0], b"fifo\0")),
        step(6, SHARE, 0, 0, &named(&[0o020_644, 0x103, 0, 0], b"null\0")),
        step(10, SHARE, NODE, 5, &named(&[0, 0], b"a\0moved\0")),
        step(32, 5, NODE, SHARE, &named(&[0, 0, 2, 0], b"moved\0out\0")),
        step(8, SHARE, 0, 0, b"out\0"),
        step(9, 5, 0, 0, b"e\0"),
        step(10, SHARE, NODE, 0, &named(&[0, 0], b"d\0x\0")),
        step(12, NEW, 0, 0, &numbers(&[0o1002, 0])),
        step(28, 0, 0, 0, b""),
    ];
    // Each would change what lies outside, were it believed.
    let out = [
        look_up(SHARE, b"..\0"),
        step(7, NEW, 0, 0, &named(&[0o755, 0], b"made\0")),
        step(8, NEW, 0, 0, b"secret\0"),
        step(7, SHARE, 0, 0, &named(&[0o755, 0], b"../made\0")),
        step(
            27,
            SHARE,
            0,
            0,
            &named(&[0o102, 0o644, 0, 0], b"../created\0"),
        ),
        step(27, SHARE, 0, 0, &named(&[0o1102, 0o644, 0, 0], b"out\0")),
        step(5, SHARE, 0, 0, b"../link\0secret\0"),
        step(10, SHARE, NODE, SHARE, &named(&[0, 0], b"a\0../secret\0")),
        step(8, SHARE, 0, 0, b"../single\0"),
        look_up(SHARE, b"up\0"),
        step(7, NEW, 0, 0, &named(&[0o755, 0], b"made\0")),
        look_up(SHARE, b"out\0"),
        step(3, 5, 0, 0, &[numbers(&[8, 0]), zeros(80)].concat()),
        step(3, SINGLE, 0, 0, &[numbers(&[8, 0]), zeros(80)].concat()),
        step(3, SINGLE, 0, 0, &[numbers(&[1, 0]), zeros(80)].concat()),
        step(12, SINGLE, 0, 0, &numbers(&[0o1002, 0])),
    ];
    let lists = [
        step(22, SHARE, 0, 0, &zeros(8)),
        step(
            31,
            SHARE,
            HANDLE,
            1,
            &named(&[0, 0, 0, 0, 400, 0, 0, 0, 0, 0], b""),
        ),
        step(
            23,
            SHARE,
            HANDLE,
            1,
            &named(&[0, 0, 0, 0, 4096, 0, 0, 0, 0, 0], b""),
        ),
        step(25, SHARE, HANDLE, 1, &zeros(16)),
        step(24, SHARE, HANDLE, 1, &zeros(24)),
        step(22, 0, 0, 0, &zeros(8)),
        step(
            31,
            0,
            HANDLE,
            2,
            &named(&[0, 0, 0, 0, 4096, 0, 0, 0, 0, 0], b""),
        ),
    ];
    let attributes = [
        step(16, SHARE, 0, 0, &named(&[1, 1, 0, 0], b"user.a\0v")),
        step(17, SHARE, 0, 0, &named(&[9, 0], b"user.a\0")),
        step(18, SHARE, 0, 0, &numbers(&[99, 0])),
        step(19, SHARE, 0, 0, b"user.a\0"),
        step(2, SINGLE, 0, 0, &zeros(16)),
        step(12, SINGLE, 0, 0, &zeros(8)),
        step(12, SINGLE, 0, 0, &numbers(&[1, 0])),
        step(13, SHARE, 0, 0, b""),
        step(26, SINGLE, 0, 0, &numbers(&[2, 0])),
        step(21, 0, 0, 0, &numbers(&[7, 31, 0, 0])),
    ];
    let seed = |kind: u8, steps: &[Vec<u8>]| [&[kind][..], &steps.concat()].concat();
    vec![(
        "fs",
        vec![
            seed(0, &files),
            seed(2, &names),
            seed(0, &lists),
            seed(0, &attributes),
            seed(0, &out),
            seed(1, &[files.to_vec(), names.to_vec()].concat()),
        ],
    )]
}
