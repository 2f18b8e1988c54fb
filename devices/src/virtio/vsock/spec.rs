//! The socket device in the words of virtio 1.2, section 5.10.

/// VIRTIO_VSOCK_F_STREAM (5.10.3).
pub(super) const F_STREAM: u64 = 1 << 0;

/// The host's context id (5.10.4).
pub(super) const HOST_CID: u64 = 2;

/// The queues (5.10.2), named from the driver's side.
pub(super) const RX: usize = 0;
pub(super) const TX: usize = 1;
pub(super) const EVENT: usize = 2;

/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET, as a struct virtio_vsock_event (5.10.6.7): connections did not survive.
pub(super) const TRANSPORT_RESET: [u8; 4] = 0u32.to_le_bytes();

/// Flags of a SHUTDOWN packet (5.10.6.5).
pub(super) mod shutdown {
    /// The sender will receive no more data.
    pub(in super::super) const RECEIVE: u32 = 1 << 0;
    /// The sender will send no more data.
    pub(in super::super) const SEND: u32 = 1 << 1;
}

/// A socket type (5.10.6): an open set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Type(pub(super) u16);

impl Type {
    pub(super) const STREAM: Self = Self(1);
}

/// What a packet is for (5.10.6): an open set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Op(pub(super) u16);

impl Op {
    pub(super) const REQUEST: Self = Self(1);
    pub(super) const RESPONSE: Self = Self(2);
    pub(super) const RST: Self = Self(3);
    pub(super) const SHUTDOWN: Self = Self(4);
    pub(super) const RW: Self = Self(5);
    pub(super) const CREDIT_UPDATE: Self = Self(6);
    pub(super) const CREDIT_REQUEST: Self = Self(7);
}

/// struct virtio_vsock_hdr (5.10.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of data behind the header.
    pub(super) len: u32,
    pub(super) kind: Type,
    pub(super) op: Op,
    pub(super) flags: u32,
    /// The sender's receive buffer for this connection.
    pub(super) buf_alloc: u32,
    /// Bytes that the sender has taken out of that buffer since the connection began; wraps.
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) const LEN: usize = 44;

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u16_at = |at: usize| u16::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Self {
            src_cid: u64_at(0),
            dst_cid: u64_at(8),
            src_port: u32_at(16),
            dst_port: u32_at(20),
            len: u32_at(24),
            kind: Type(u16_at(28)),
            op: Op(u16_at(30)),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.0.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The reset that answers this packet.
    pub(super) fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            len: 0,
            kind: self.kind,
            op: Op::RST,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }
}
