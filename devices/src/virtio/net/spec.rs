//! The network device in the words of virtio 1.2, section 5.1.

/// The queues (5.1.2), named from the driver's side.
pub(super) const RX: usize = 0;
pub(super) const TX: usize = 1;

/// Feature bits (5.1.3). "Guest" ones are what the driver accepts, "host" ones what the device does.
pub(super) mod feature {
    pub(in super::super) const CSUM: u64 = 1 << 0;
    pub(in super::super) const GUEST_CSUM: u64 = 1 << 1;
    pub(in super::super) const MTU: u64 = 1 << 3;
    pub(in super::super) const MAC: u64 = 1 << 5;
    pub(in super::super) const GUEST_TSO4: u64 = 1 << 7;
    pub(in super::super) const GUEST_TSO6: u64 = 1 << 8;
    pub(in super::super) const HOST_TSO4: u64 = 1 << 11;
    pub(in super::super) const HOST_TSO6: u64 = 1 << 12;
    pub(in super::super) const MRG_RXBUF: u64 = 1 << 15;
    pub(in super::super) const STATUS: u64 = 1 << 16;
}

/// Offsets in the configuration space (5.1.4, struct virtio_net_config), little-endian.
pub(super) mod config {
    pub(in super::super) const MAC: usize = 0;
    pub(in super::super) const STATUS: usize = 6;
    pub(in super::super) const MTU: usize = 10;
    pub(in super::super) const LEN: usize = 12;
    /// Value of STATUS (5.1.4): the link is up.
    pub(in super::super) const S_LINK_UP: u16 = 1 << 0;
}

/// struct virtio_net_hdr (5.1.6), which is also what a tap puts before each packet.
pub(super) mod header {
    pub(in super::super) const LEN: usize = sys::tap::HEADER_LEN;
    /// Offset of `num_buffers`, which a tap does not write.
    pub(in super::super) const NUM_BUFFERS: usize = 10;
}

/// Ethernet's own header, with a VLAN tag.
const ETHERNET_BYTES: usize = 18;
/// The largest packet behind an Ethernet header: what segmentation offload carries.
const MAX_PAYLOAD: usize = 65_535;
/// The shortest packet that a tap takes: a header, and an Ethernet header.
pub(super) const MIN_PACKET: usize = header::LEN + 14;
/// The longest packet either way, its headers included.
pub(super) const MAX_PACKET: usize = header::LEN + ETHERNET_BYTES + MAX_PAYLOAD;

/// The length of a full packet without segmentation offload.
pub(super) fn full_packet(mtu: u16) -> usize {
    header::LEN + ETHERNET_BYTES + usize::from(mtu)
}
