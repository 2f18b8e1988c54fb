//! Runs of guest memory, against plain vectors of bytes.

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::*;

const RAM: usize = 0x1000;

#[derive(Debug, Clone)]
enum Step {
    Advance(usize),
    Truncate(usize),
    Take(usize),
    Put(Vec<u8>),
    PutZeros(usize),
    SplitOffLast(usize),
    Prefix(usize),
    Append,
    Read(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    // Around the lengths of the pieces, and far beyond them.
    let count = || prop_oneof![4 => 0..40usize, 1 => 0..400usize, 1 => Just(usize::MAX)];
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        count().prop_map(Step::Advance),
        count().prop_map(Step::Truncate),
        (0..100usize).prop_map(Step::Take),
        bytes().prop_map(Step::Put),
        count().prop_map(Step::PutZeros),
        count().prop_map(Step::SplitOffLast),
        count().prop_map(Step::Prefix),
        Just(Step::Append),
        bytes().prop_map(Step::Read),
    ]
}

/// A run and the addresses of its bytes, in their order.
struct Pair<'m> {
    run: Segments<'m>,
    model: Vec<u64>,
}

impl<'m> Pair<'m> {
    fn new(memory: &'m GuestMemoryMmap<()>, pieces: &[(u64, usize)]) -> Self {
        let (mut run, mut model) = (Segments::new(), Vec::new());
        for &(at, len) in pieces {
            run.push(memory.get_slice(GuestAddress(at), len).unwrap())
                .unwrap();
            model.extend(at..at + len as u64);
        }
        Self { run, model }
    }

    /// The run's bytes are those in memory at the model's places.
    fn check(&self, memory: &GuestMemoryMmap<()>) {
        assert_eq!(self.run.len(), self.model.len());
        assert_eq!(self.run.is_empty(), self.model.is_empty());
        let mut seen = vec![0; self.model.len()];
        assert_eq!(self.run.prefix(usize::MAX).take(&mut seen), seen.len());
        let held: Vec<u8> = self
            .model
            .iter()
            .map(|&at| memory.read_obj(GuestAddress(at)).unwrap())
            .collect();
        assert_eq!(seen, held);
    }

    /// Writes at the front and drops it; the later of two bytes at one place counts.
    fn written(&mut self, bytes: &[u8], count: usize, expected: &mut [u8]) {
        assert_eq!(count, bytes.len().min(self.model.len()));
        for (at, &byte) in self.model.drain(..count).zip(bytes) {
            expected[at as usize] = byte;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_is_what_a_vector_of_bytes_is(
        pieces in prop::collection::vec((0..RAM as u64 - 40, 0..40usize), 0..20),
        more in prop::collection::vec((0..RAM as u64 - 40, 0..40usize), 0..5),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        // What guest memory must hold.
        let mut expected: Vec<u8> = (0..RAM).map(|at| (at ^ at >> 8) as u8).collect();
        memory.write_slice(&expected, GuestAddress(0)).unwrap();
        let mut pair = Pair::new(&memory, &pieces);
        for step in steps {
            match step {
                Step::Advance(count) => {
                    pair.run.advance(count);
                    pair.model.drain(..count.min(pair.model.len()));
                }
                Step::Truncate(len) => {
                    pair.run.truncate(len);
                    pair.model.truncate(len);
                }
                Step::Take(count) => {
                    let mut bytes = vec![0; count];
                    let taken = pair.run.take(&mut bytes);
                    let from: Vec<_> = pair.model.drain(..count.min(pair.model.len())).collect();
                    let held: Vec<_> = from.iter().map(|&at| expected[at as usize]).collect();
                    prop_assert_eq!(&bytes[..taken], &held[..]);
                }
                Step::Put(bytes) => {
                    let count = pair.run.put(&bytes);
                    pair.written(&bytes, count, &mut expected);
                }
                Step::PutZeros(count) => {
                    let zeros = vec![0; count.min(pair.model.len())];
                    pair.run.put_zeros(count);
                    pair.written(&zeros, zeros.len(), &mut expected);
                }
                Step::SplitOffLast(count) => {
                    let run = pair.run.split_off_last(count);
                    let keep = pair.model.len().saturating_sub(count);
                    let model = pair.model.split_off(keep);
                    Pair { run, model }.check(&memory);
                }
                Step::Prefix(len) => {
                    let run = pair.run.prefix(len);
                    let model = pair.model[..len.min(pair.model.len())].to_vec();
                    Pair { run, model }.check(&memory);
                }
                Step::Append => {
                    let Pair { run, model } = Pair::new(&memory, &more);
                    if pair.run.append(run).is_ok() {
                        pair.model.extend(model);
                    }
                }
                Step::Read(bytes) => {
                    let (reader, writer) = std::io::pipe().unwrap();
                    std::io::Write::write_all(&mut &writer, &bytes).unwrap();
                    drop(writer);
                    let count = pair.run.read_from(std::os::fd::AsFd::as_fd(&reader)).unwrap();
                    pair.written(&bytes, count, &mut expected);
                }
            }
            pair.check(&memory);
        }
        let mut held = vec![0; RAM];
        memory.read_slice(&mut held, GuestAddress(0)).unwrap();
        prop_assert_eq!(held, expected, "nothing else was written");
    }
}
