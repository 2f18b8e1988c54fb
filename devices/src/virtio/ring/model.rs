//! Queue arithmetic, against a model that counts in 64 bits and never wraps.

use std::sync::atomic::AtomicU32;

use memory::Memory;
use proptest::prelude::*;
use virtio_queue::QueueState;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;

const TABLE: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;

/// What the driver or the device does.
#[derive(Debug, Clone)]
enum Step {
    /// The driver moves its index by so many chains; no honest one has more than the queue is long under way.
    Add(u16),
    Pop,
    /// Puts back so many of those that were popped last.
    Unpop(u16),
    /// Gives back so many of those that were popped first.
    Push(usize),
    /// The driver asks for an interrupt at the chain so far from the last one that interrupted.
    WantsInterruptAt(i16),
    Notify,
    EnableKicks,
    EnableKicksBeyond(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u16).prop_map(Step::Add),
        1 => (0..40u16).prop_map(Step::Add),
        6 => Just(Step::Pop),
        1 => (0..4u16).prop_map(Step::Unpop),
        4 => (0..5usize).prop_map(Step::Push),
        2 => (-20..20i16).prop_map(Step::WantsInterruptAt),
        2 => Just(Step::Notify),
        1 => Just(Step::EnableKicks),
        1 => (0..4u16).prop_map(Step::EnableKicksBeyond),
    ]
}

/// Chains since the beginning: made available, popped, given back, and given back at the last interrupt.
#[derive(Debug, Default, Clone, Copy)]
struct Model {
    added: u64,
    popped: u64,
    pushed: u64,
    notified: u64,
    used_event: u64,
}

struct Pair {
    ring: Ring,
    memory: Memory,
    interrupt: Interrupt,
    irqfd: Arc<EventFd>,
    model: Model,
    size: u16,
    event_idx: bool,
    /// Where both indices begin: near their wrap.
    begun: u16,
    /// Popped and not pushed, the oldest first.
    under_way: Vec<u16>,
}

impl Pair {
    fn new(size: u16, begun: u16, event_idx: bool) -> Self {
        let memory =
            Memory::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap());
        let state = QueueState {
            max_size: 32,
            next_avail: begun,
            next_used: begun,
            event_idx_enabled: event_idx,
            size,
            ready: true,
            desc_table: TABLE,
            avail_ring: AVAILABLE,
            used_ring: USED,
        };
        let started = StartedQueue {
            queue: Queue::try_from(state).unwrap(),
            kick: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
        };
        let irqfd = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let interrupt = Interrupt::new(Arc::new(AtomicU32::new(0)), irqfd.clone());
        for index in 0..size {
            // One writable byte each.
            let at = GuestAddress(TABLE + 16 * u64::from(index));
            memory
                .write_obj([0x8000 + u64::from(index), 1 | 2 << 32], at)
                .unwrap();
        }
        let pair = Self {
            ring: Ring::new(0, started, Shape::Writable, &interrupt),
            memory,
            interrupt,
            irqfd,
            model: Model::default(),
            size,
            event_idx,
            begun,
            under_way: Vec::new(),
        };
        pair.write_index(AVAILABLE + 2, 0);
        pair.write_index(AVAILABLE + 4 + 2 * u64::from(size), 0);
        pair
    }

    /// Writes a ring index: that of chain number `count`.
    fn write_index(&self, at: u64, count: u64) {
        self.memory
            .write_obj(self.wrapped(count), GuestAddress(at))
            .unwrap();
    }

    fn wrapped(&self, count: u64) -> u16 {
        self.begun.wrapping_add(count as u16)
    }

    fn read_index(&self, at: u64) -> u16 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// The head of chain number `count`: any that is legal will do.
    fn head(&self, count: u64) -> u16 {
        (count * 5 % u64::from(self.size)) as u16
    }

    fn slot(&self, count: u64) -> u64 {
        u64::from(self.wrapped(count) % self.size)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Add(count) => {
                for _ in 0..count {
                    let at = AVAILABLE + 4 + 2 * self.slot(self.model.added);
                    let head = self.head(self.model.added);
                    self.memory.write_obj(head, GuestAddress(at)).unwrap();
                    self.model.added += 1;
                }
                self.write_index(AVAILABLE + 2, self.model.added);
            }
            Step::Pop => self.pop(),
            Step::Unpop(count) => {
                let count = count.min(self.under_way.len() as u16);
                self.ring.unpop(count);
                self.model.popped -= u64::from(count);
                self.under_way
                    .truncate(self.under_way.len() - usize::from(count));
            }
            Step::Push(count) => self.push(count.min(self.under_way.len())),
            Step::WantsInterruptAt(distance) => {
                self.model.used_event = self.model.notified.saturating_add_signed(distance.into());
                let at = AVAILABLE + 4 + 2 * u64::from(self.size);
                self.write_index(at, self.model.used_event);
            }
            Step::Notify => self.notify(),
            Step::EnableKicks => self.enable_kicks(0),
            Step::EnableKicksBeyond(seen) => {
                let waiting = self.model.added - self.model.popped;
                self.enable_kicks(u64::from(seen).min(waiting));
            }
        }
    }

    fn pop(&mut self) {
        let Model { added, popped, .. } = self.model;
        let under_way = self.under_way.len() as u64;
        let chain = self.ring.pop(&self.memory).map(|chain| chain.head);
        let size = u64::from(self.size);
        let honest = added - popped <= size && (added == popped || under_way < size);
        assert_eq!(self.interrupt.is_reset_needed(), !honest);
        if honest && added > popped {
            // The ring has been written over since, if the driver was not honest before.
            assert_eq!(chain, Some(self.head(popped)));
            self.under_way.push(self.head(popped));
            self.model.popped += 1;
        } else {
            assert_eq!(chain, None);
        }
    }

    fn push(&mut self, count: usize) {
        let heads: Vec<_> = self.under_way.drain(..count).collect();
        let chains: Vec<_> = heads
            .iter()
            .map(|&head| (head, usize::from(head) + 7))
            .collect();
        self.ring.push_all(&self.memory, &chains);
        for head in heads {
            let at = USED + 4 + 8 * self.slot(self.model.pushed);
            let element: [u32; 2] = self.memory.read_obj(GuestAddress(at)).unwrap();
            assert_eq!(element, [head.into(), u32::from(head) + 7]);
            self.model.pushed += 1;
        }
        if self.model.pushed > 0 {
            assert_eq!(self.read_index(USED + 2), self.wrapped(self.model.pushed));
        }
    }

    fn notify(&mut self) {
        let Model {
            pushed,
            notified,
            used_event,
            ..
        } = self.model;
        self.ring.notify(&self.memory);
        let told = self.irqfd.read().is_ok();
        let passed = (notified..pushed).contains(&used_event);
        assert_eq!(told, pushed > notified && (passed || !self.event_idx));
        self.model.notified = pushed;
    }

    fn enable_kicks(&mut self, seen: u64) {
        let more = self.ring.enable_kicks_beyond(&self.memory, seen as u16);
        assert_eq!(more, self.model.added > self.model.popped + seen);
        if self.event_idx {
            let at = USED + 4 + 8 * u64::from(self.size);
            assert_eq!(self.read_index(at), self.wrapped(self.model.popped + seen));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_counts_as_a_model_that_never_wraps(
        size in prop::sample::select(&[1u16, 2, 4, 16][..]),
        begun in prop_oneof![Just(0), 0xfff0..=u16::MAX, any::<u16>()],
        event_idx: bool,
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut pair = Pair::new(size, begun, event_idx);
        for step in &steps {
            pair.take(step);
            if pair.interrupt.is_reset_needed() {
                // Nothing is taken or given any more.
                let index = pair.read_index(USED + 2);
                assert!(pair.ring.pop(&pair.memory).is_none());
                pair.ring.push_all(&pair.memory, &[]);
                assert_eq!(pair.read_index(USED + 2), index);
                break;
            }
        }
    }
}
