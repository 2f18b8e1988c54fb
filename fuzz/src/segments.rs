//! Runs of guest memory, beside the same operations on a vector.

use memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, MAX_SEGMENTS, Segments};

use crate::input::Input;

/// Runs an input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).expect("a page");
    let pattern: Vec<u8> = (0..0x1000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    memory
        .write_slice(&pattern, GuestAddress(0))
        .expect("it is as long");
    let mut run = Segments::new();
    let mut model: Vec<usize> = Vec::new();
    let mut pieces = 0;
    while let Some(op) = input.op() {
        let number = usize::from(input.u16());
        match op % 8 {
            0 | 1 => {
                let (at, len) = (number % 0x1000, usize::from(input.u8()));
                let len = len.min(0x1000 - at);
                let slice = memory
                    .get_slice(GuestAddress(at as u64), len)
                    .expect("it is inside");
                match run.push(slice) {
                    Ok(()) => model.extend(at..at + len),
                    Err(_) => assert_eq!(run.pieces(), MAX_SEGMENTS),
                }
                pieces += 1;
            }
            2 => {
                run.advance(number);
                model.drain(..number.min(model.len()));
            }
            3 => {
                run.truncate(number);
                model.truncate(number);
            }
            4 => {
                let tail = run.split_off_last(number);
                let kept = model.len().saturating_sub(number);
                check(tail, &model.split_off(kept), &pattern);
            }
            5 => check(
                run.prefix(number),
                &model[..number.min(model.len())],
                &pattern,
            ),
            6 => {
                let mut bytes = vec![0; number % 0x2000];
                let taken = run.take(&mut bytes);
                let expected: Vec<u8> = model.drain(..taken).map(|at| pattern[at]).collect();
                assert_eq!(bytes[..taken], expected);
            }
            _ => {
                let mut whole = Segments::new();
                let other = run.prefix(number);
                let expected = [&model[..number.min(model.len())], &model[..]].concat();
                if whole.append(other).is_ok() && whole.append(run.prefix(run.len())).is_ok() {
                    check(whole, &expected, &pattern);
                }
            }
        }
        assert_eq!(run.len(), model.len());
        assert!(run.pieces() <= pieces.min(MAX_SEGMENTS));
    }
    check(run, &model, &pattern);
}

fn check(mut run: Segments<'_>, model: &[usize], pattern: &[u8]) {
    let expected: Vec<u8> = model.iter().map(|&at| pattern[at]).collect();
    let mut bytes = vec![0; run.len()];
    assert_eq!(run.take(&mut bytes), bytes.len());
    assert!(bytes == expected, "the run is not what it should be");
    assert!(run.is_empty());
}
