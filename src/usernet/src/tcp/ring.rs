//! A bounded queue of bytes in one piece of memory, which is there only while it is in use.

/// The queue.
#[derive(Debug)]
pub struct Ring {
    memory: Box<[u8]>,
    capacity: usize,
    head: usize,
    len: usize,
}

impl Ring {
    /// An empty one for at most `capacity` bytes. No memory is taken yet.
    pub fn new(capacity: usize) -> Ring {
        Ring {
            memory: Box::default(),
            capacity,
            head: 0,
            len: 0,
        }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes for which there is room.
    pub fn free(&self) -> usize {
        self.capacity - self.len
    }

    /// The most that there can be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether memory is taken.
    pub fn holds_memory(&self) -> bool {
        !self.memory.is_empty()
    }

    /// Gives the memory back if it is not in use.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.memory = Box::default();
            self.head = 0;
        }
    }

    /// Room behind what is there, in two pieces.
    pub fn room(&mut self) -> [&mut [u8]; 2] {
        if self.memory.is_empty() && self.capacity > 0 {
            self.memory = vec![0; self.capacity].into();
        }
        if self.len == 0 {
            self.head = 0;
        }
        let tail = self.head + self.len;
        match tail.checked_sub(self.capacity) {
            Some(wrapped) => [&mut self.memory[wrapped..self.head], &mut []],
            None => {
                let (first, last) = self.memory.split_at_mut(tail);
                [last, &mut first[..self.head]]
            }
        }
    }

    /// `count` bytes of the room have been filled.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.free(), "more than there was room for");
        self.len += count;
    }

    /// Appends as many of these bytes as there is room for; their number.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.free());
        if count > 0 {
            let [first, second] = self.room();
            let (a, b) = bytes[..count].split_at(count.min(first.len()));
            first[..a.len()].copy_from_slice(a);
            second[..b.len()].copy_from_slice(b);
            self.filled(count);
        }
        count
    }

    /// `len` bytes from the place `from` on, in two pieces.
    pub fn slices(&self, from: usize, len: usize) -> [&[u8]; 2] {
        assert!(from + len <= self.len, "beyond the end");
        let start = self.head + from;
        match start.checked_sub(self.capacity) {
            Some(start) => [&self.memory[start..start + len], &[]],
            None => {
                let first = len.min(self.capacity - start);
                [
                    &self.memory[start..start + first],
                    &self.memory[..len - first],
                ]
            }
        }
    }

    /// Drops the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len, "more than there is");
        self.len -= count;
        self.head += count;
        if self.head >= self.capacity {
            self.head -= self.capacity;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_bounded_queue(
            capacity in 1usize..64,
            steps in proptest::collection::vec((any::<bool>(), 0usize..80), 0..200),
        ) {
            let mut ring = Ring::new(capacity);
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for (push, count) in steps {
                if push {
                    let bytes: Vec<u8> = (0..count).map(|i| next.wrapping_add(i as u8)).collect();
                    let taken = ring.push(&bytes);
                    prop_assert_eq!(taken, count.min(capacity - model.len()));
                    model.extend(&bytes[..taken]);
                    next = next.wrapping_add(taken as u8);
                } else {
                    let count = count.min(model.len());
                    let start = count / 2;
                    let expected: Vec<u8> = model.range(start..count).copied().collect();
                    prop_assert_eq!(ring.slices(start, count - start).concat(), expected);
                    ring.consume(count);
                    model.drain(..count);
                    ring.release();
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!(ring.free(), capacity - model.len());
            }
        }
    }
}
