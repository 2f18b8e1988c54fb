//! Credit, against a model that counts every byte in 64 bits and never wraps.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use proptest::prelude::*;

use super::*;

const RAM: usize = 1 << 20;
/// The device's buffer, and the guest's at first.
const BUFFER: u32 = 10_000;

/// What either side does.
#[derive(Debug, Clone)]
enum Step {
    /// The guest sends so many bytes, whether it may or not.
    GuestSends(usize),
    /// The guest says that it took so many bytes of those that it got, and how large its buffer is. True or not.
    GuestTells {
        taken: i64,
        buf_alloc: u32,
    },
    HostWrites(usize),
    HostReads(usize),
    /// The guest has a receive buffer of this size behind the header.
    Receive(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4000usize).prop_map(Step::GuestSends),
        1 => Just(Step::GuestSends(BUFFER as usize + 1)),
        2 => (-20_000..20_000i64, 0..2 * BUFFER)
            .prop_map(|(taken, buf_alloc)| Step::GuestTells { taken, buf_alloc }),
        1 => any::<i64>().prop_map(|taken| Step::GuestTells { taken, buf_alloc: u32::MAX }),
        3 => (0..4000usize).prop_map(Step::HostWrites),
        2 => (0..40_000usize).prop_map(Step::HostReads),
        4 => (0..5000usize).prop_map(Step::Receive),
    ]
}

/// Both directions, in bytes since the beginning.
struct Model {
    /// To the guest: written by the host, sent, taken as far as the guest is believed, and the guest's buffer.
    written: u64,
    sent: u64,
    taken: u64,
    buf_alloc: u64,
    /// From the guest: accepted, and read by the host.
    accepted: u64,
    read: u64,
}

struct Pair {
    connection: Connection,
    host: UnixStream,
    memory: GuestMemoryMmap<()>,
    model: Model,
    /// Where the counters begin: near their wrap.
    begun: u32,
}

fn run(memory: &GuestMemoryMmap<()>, at: u64, len: usize) -> Segments<'_> {
    let mut run = Segments::new();
    run.push(memory.get_slice(GuestAddress(at), len).unwrap())
        .unwrap();
    run
}

impl Pair {
    fn new(begun: u32) -> Self {
        let (host, fd) = UnixStream::pair().unwrap();
        for end in [&host, &fd] {
            end.set_nonblocking(true).unwrap();
        }
        let request = Header {
            src_cid: 3,
            dst_cid: HOST_CID,
            src_port: 9,
            dst_port: 7,
            len: 0,
            kind: Type::STREAM,
            op: Op::REQUEST,
            flags: 0,
            buf_alloc: BUFFER,
            fwd_cnt: 0,
        };
        let mut connection = Connection::new(&request, fd.into(), BUFFER);
        let begun_at = Wrapping(begun);
        for counter in [
            &mut connection.received,
            &mut connection.forwarded,
            &mut connection.told_forwarded,
            &mut connection.sent,
            &mut connection.peer_forwarded,
        ] {
            *counter = begun_at;
        }
        let model = Model {
            written: 0,
            sent: 0,
            taken: 0,
            buf_alloc: BUFFER.into(),
            accepted: 0,
            read: 0,
        };
        Self {
            connection,
            host,
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap(),
            model,
            begun,
        }
    }

    /// `false` if the device ends the connection.
    fn take(&mut self, step: &Step) -> bool {
        // The descriptor may have become ready since: an edge would say so.
        self.connection.ready(EventSet::IN | EventSet::OUT);
        match *step {
            Step::GuestSends(len) => return self.guest_sends(len),
            Step::GuestTells { taken, buf_alloc } => self.guest_tells(taken, buf_alloc),
            Step::HostWrites(len) => {
                self.model.written += self.host.write(&vec![1; len]).unwrap_or(0) as u64;
            }
            Step::HostReads(len) => {
                self.model.read += self.host.read(&mut vec![0; len]).unwrap_or(0) as u64;
            }
            Step::Receive(len) => self.receive(len),
        }
        true
    }

    fn guest_sends(&mut self, len: usize) -> bool {
        let waiting = self.connection.unsent.len() as u64;
        let mut run = run(&self.memory, 0, len);
        let accepted = self.connection.receive(&mut run).is_ok();
        assert_eq!(accepted, len as u64 + waiting <= BUFFER.into());
        if accepted {
            self.model.accepted += len as u64;
        }
        accepted
    }

    fn guest_tells(&mut self, taken: i64, buf_alloc: u32) {
        let told = (self.model.taken as i64).wrapping_add(taken);
        let update = Header {
            buf_alloc,
            fwd_cnt: self.begun.wrapping_add(told as u32),
            ..self.connection.header(Op::CREDIT_UPDATE, 0)
        };
        self.connection.update_credit(&update);
        self.model.buf_alloc = buf_alloc.into();
        // Believed if some count from the last one to what was sent looks like it.
        let low = update
            .fwd_cnt
            .wrapping_sub(self.begun.wrapping_add(self.model.taken as u32));
        let believed = self.model.taken + u64::from(low);
        if believed <= self.model.sent {
            self.model.taken = believed;
        }
    }

    fn receive(&mut self, room: usize) {
        let credit = self
            .model
            .buf_alloc
            .saturating_sub(self.model.sent - self.model.taken);
        let mut head = run(&self.memory, 0, Header::LEN);
        let mut room = run(&self.memory, 0x1000, room);
        if let Filled::Packet(len) = self.connection.fill(&mut head, &mut room) {
            let data = (len - Header::LEN) as u64;
            assert!(
                data <= credit,
                "{data} bytes were sent with credit for {credit}"
            );
            self.model.sent += data;
        }
    }

    /// Nothing is counted twice, lost, or held beyond the buffer.
    fn check(&self) {
        let Self {
            connection, model, ..
        } = self;
        let wrapped = |count: u64| Wrapping(self.begun) + Wrapping(count as u32);
        let waiting = connection.unsent.len() as u64;
        assert_eq!(connection.received, wrapped(model.accepted));
        assert_eq!(connection.forwarded, wrapped(model.accepted - waiting));
        assert_eq!(connection.sent, wrapped(model.sent));
        assert_eq!(connection.peer_forwarded, wrapped(model.taken));
        assert!(waiting <= BUFFER.into() && connection.unsent.capacity() <= BUFFER as usize);
        assert!(model.read + waiting <= model.accepted);
        assert!(model.sent <= model.written);
    }
}

#[test]
fn what_the_host_fails_to_take_is_a_failure_of_the_connection() {
    let mut pair = Pair::new(0);
    let full = std::fs::File::options().write(true).open("/dev/full");
    pair.connection.fd = full.unwrap().into();
    assert!(pair.guest_sends(1));
    let error = pair.connection.take_failure();
    assert!(matches!(error, Some(StreamError::Write(_))), "{error:?}");
    assert!(pair.connection.take_failure().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn credit_is_what_a_model_that_counts_bytes_says(
        begun in prop_oneof![Just(0), Just(u32::MAX), any::<u32>()],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut pair = Pair::new(begun);
        for step in &steps {
            if !pair.take(step) {
                break;
            }
            pair.check();
        }
    }
}
