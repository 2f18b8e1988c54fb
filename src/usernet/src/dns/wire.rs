//! Messages as they are on the wire (RFC 1035, 4; RFC 6891 for EDNS): what has to be known of a query in order to
//! answer it or to pass it on, and the answers that are our own.
//!
//! Every byte comes from a stranger. Reading is a cursor that only goes forward: no pointer of a compressed name is
//! followed. What is passed on is not rewritten but for its identifier, so that nothing that is not understood gets
//! lost.

use std::net::Ipv4Addr;

use super::name::Name;

/// The longest query that is taken, in bytes. Real ones are below 512.
pub const MAX_QUERY: usize = 4096;
/// The longest message over UDP without EDNS (RFC 1035, 2.3.4).
pub(super) const PLAIN_UDP: usize = 512;
/// What we say that we take, and the most that we send of our own, over UDP: what passes any path unfragmented (DNS
/// flag day 2020).
pub(super) const EDNS_UDP: u16 = 1232;
/// How long a client may remember our answers, in seconds: containers come and go, and Docker's 600 would outlive them.
pub(super) const TTL: u32 = 5;

const HEADER: usize = 12;
// Header flags (RFC 1035, 4.1.1; CD: RFC 4035, 3.2.2).
const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AA: u16 = 0x0400;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const CD: u16 = 0x0010;
const RCODE: u16 = 0x000f;
/// DNSSEC OK, in an OPT record's TTL (RFC 3225, 3).
const DO: u32 = 0x8000;

/// TYPE of a host's IPv4 address (RFC 1035, 3.2.2).
pub(super) const A: u16 = 1;
/// TYPE of a pointer to a name (same place).
pub(super) const PTR: u16 = 12;
/// QTYPE for everything (same place).
pub(super) const ANY: u16 = 255;
const OPT: u16 = 41;
/// CLASS of the Internet (RFC 1035, 3.2.4).
pub(super) const IN: u16 = 1;
/// A pointer to the question's name, which follows the header (RFC 1035, 4.1.4).
const TO_QUESTION: u16 = 0xc000 | HEADER as u16;

/// A response code (RFC 1035, 4.1.1): an open set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Rcode = Rcode(0);
    /// The query cannot be understood.
    pub const FORMERR: Rcode = Rcode(1);
    /// The server could not find out.
    pub const SERVFAIL: Rcode = Rcode(2);
    /// There is no such name.
    pub const NXDOMAIN: Rcode = Rcode(3);
    /// Not a kind of query that is served.
    pub const NOTIMP: Rcode = Rcode(4);
    /// The server does not want to.
    pub const REFUSED: Rcode = Rcode(5);
}

/// A query of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The client's identifier.
    pub id: u16,
    flags: u16,
    /// Name, type and class as they came.
    question: Vec<u8>,
    /// The name in the question.
    pub name: Name,
    /// Which records.
    pub kind: u16,
    /// Of which class.
    pub class: u16,
    /// The OPT record, if there is one: the longest message that the client takes over UDP, and its DO flag.
    edns: Option<(u16, u32)>,
}

/// A message that is not a query which can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unserved {
    /// It is not answered: it is no query, or has no whole header.
    Ignored,
    /// This is the answer.
    Answered(Vec<u8>),
}

/// A record of an answer of our own, about the name in the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An address.
    Address(Ipv4Addr),
    /// The name of an address.
    Pointer(Name),
}

/// What remains to be read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.bytes(1)?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.bytes(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// A name that is not compressed.
    fn name(&mut self) -> Option<Name> {
        let mut name = Name::default();
        loop {
            match usize::from(self.u8()?) {
                0 => return Some(name),
                // Above 63 it is a pointer, or of a type that there is not; `push` refuses both.
                len => name.push(self.bytes(len)?)?,
            }
        }
    }

    /// A name of any kind, of which only the end is wanted.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.u8()? {
                0 => return Some(()),
                len @ 1..=63 => drop(self.bytes(usize::from(len))?),
                0xc0.. => return self.u8().map(drop),
                _ => return None,
            }
        }
    }
}

impl Query {
    /// Reads a query. It is read to its end, so that only what is well-formed is passed on.
    pub fn parse(message: &[u8]) -> Result<Query, Unserved> {
        let mut cursor = Cursor(message);
        let header = (|| Some((cursor.u16()?, cursor.u16()?, counts(&mut cursor)?)))();
        let Some((id, flags, counts)) = header else {
            return Err(Unserved::Ignored);
        };
        if flags & QR != 0 {
            return Err(Unserved::Ignored);
        }
        let answered = |rcode| Unserved::Answered(bare(id, flags, rcode));
        if flags & OPCODE != 0 {
            return Err(answered(Rcode::NOTIMP));
        }
        if counts[0] != 1 || message.len() > MAX_QUERY {
            return Err(answered(Rcode::FORMERR));
        }
        let rest = cursor.0;
        let read = (|| {
            let (name, kind, class) = (cursor.name()?, cursor.u16()?, cursor.u16()?);
            let question = rest[..rest.len() - cursor.0.len()].to_vec();
            let records = counts[1..].iter().map(|&count| u32::from(count)).sum();
            let edns = records_to_end(&mut cursor, records)?;
            Some(Query {
                id,
                flags,
                question,
                name,
                kind,
                class,
                edns,
            })
        })();
        read.ok_or_else(|| answered(Rcode::FORMERR))
    }

    /// An answer of our own, of at most `limit` bytes: records that do not fit are left out, and TC says so.
    /// `authoritative`: it is about names of the network.
    pub fn answer(
        &self,
        rcode: Rcode,
        authoritative: bool,
        records: &[Record],
        limit: usize,
    ) -> Vec<u8> {
        let authority = if authoritative { AA } else { 0 };
        let mut message = bare(self.id, self.flags, rcode);
        message[4..6].copy_from_slice(&1u16.to_be_bytes());
        message.extend(&self.question);
        // The OPT record comes last, and always: RFC 6891, 6.1.1.
        let reserve = if self.edns.is_some() { 11 } else { 0 };
        let (mut count, mut cut) = (0u16, 0);
        for record in records {
            let end = message.len();
            push_record(&mut message, record);
            if message.len() + reserve > limit {
                message.truncate(end);
                cut = TC;
                break;
            }
            count += 1;
        }
        if let Some((_, flags)) = self.edns {
            message.push(0);
            message.extend([OPT, EDNS_UDP].map(u16::to_be_bytes).concat());
            message.extend((flags & DO).to_be_bytes());
            message.extend([0; 2]);
            message[10..12].copy_from_slice(&1u16.to_be_bytes());
        }
        message[6..8].copy_from_slice(&count.to_be_bytes());
        let flags = u16::from_be_bytes([message[2], message[3]]) | authority | cut;
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message
    }

    /// The longest answer that the client takes over UDP.
    pub fn udp_limit(&self) -> usize {
        let wanted = self.edns.map_or(0, |(size, _)| usize::from(size));
        wanted.clamp(PLAIN_UDP, usize::from(EDNS_UDP))
    }

    /// Looks whether a message answers this query, which was sent with the identifier `id`; its response code. A server
    /// that does not understand a query may leave the question out of its refusal.
    pub fn is_answered_by(&self, id: u16, message: &[u8]) -> Option<Rcode> {
        let mut cursor = Cursor(message);
        let (theirs, flags, counts) = (cursor.u16()?, cursor.u16()?, counts(&mut cursor)?);
        if theirs != id || flags & QR == 0 || flags & OPCODE != 0 {
            return None;
        }
        let rcode = Rcode(flags & RCODE);
        match counts[0] {
            1 => {
                let question = cursor.bytes(self.question.len())?;
                question
                    .eq_ignore_ascii_case(&self.question)
                    .then_some(rcode)
            }
            0 if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN => Some(rcode),
            _ => None,
        }
    }
}

/// Gives a message another identifier. It has a header.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    message[..2].copy_from_slice(&id.to_be_bytes());
}

fn counts(cursor: &mut Cursor<'_>) -> Option<[u16; 4]> {
    Some([cursor.u16()?, cursor.u16()?, cursor.u16()?, cursor.u16()?])
}

/// Reads so many records, which must end where the message does; what the OPT record among them says.
#[expect(
    clippy::option_option,
    reason = "malformed, without OPT, with OPT: three cases of one short function"
)]
fn records_to_end(cursor: &mut Cursor<'_>, count: u32) -> Option<Option<(u16, u32)>> {
    let mut edns = None;
    // Each takes bytes, so a count that lies ends with them.
    for _ in 0..count {
        cursor.skip_name()?;
        let (kind, class, ttl) = (cursor.u16()?, cursor.u16()?, cursor.u32()?);
        let len = usize::from(cursor.u16()?);
        cursor.bytes(len)?;
        if kind == OPT {
            if edns.is_some() {
                return None;
            }
            edns = Some((class, ttl));
        }
    }
    cursor.0.is_empty().then_some(edns)
}

/// An answer that is a header alone.
fn bare(id: u16, flags: u16, Rcode(rcode): Rcode) -> Vec<u8> {
    let flags = QR | flags & (OPCODE | RD | CD) | RA | rcode;
    let mut message = Vec::with_capacity(PLAIN_UDP);
    message.extend(id.to_be_bytes());
    message.extend(flags.to_be_bytes());
    message.resize(HEADER, 0);
    message
}

fn push_record(message: &mut Vec<u8>, record: &Record) {
    let (kind, data) = match record {
        Record::Address(address) => (A, address.octets().to_vec()),
        Record::Pointer(name) => (PTR, name.wire().collect()),
    };
    message.extend([TO_QUESTION, kind, IN].map(u16::to_be_bytes).concat());
    message.extend(TTL.to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}
