//! The layout, for any size of memory and any number of vCPUs and devices, against a plain list of address ranges.

use proptest::prelude::*;

use crate::e820::{self, Kind};
use crate::layout::*;
use crate::{Initramfs, mptable, pvh, tables};
use memory::GuestAddress;

/// A range of addresses and what lies there.
#[derive(Debug, Clone)]
struct Tenant {
    name: String,
    start: u64,
    end: u64,
}

fn tenant(name: impl Into<String>, start: u64, len: u64) -> Tenant {
    Tenant {
        name: name.into(),
        start,
        end: start.checked_add(len).expect("no range wraps"),
    }
}

/// Everything that a guest finds outside of its memory.
fn outside(devices: usize) -> Vec<Tenant> {
    let mut all = vec![
        tenant("ECAM", ECAM, ECAM_LEN),
        tenant("32-bit BARs", BAR32, BAR32_LEN),
        tenant("I/O APIC", IO_APIC, APIC_LEN),
        tenant("local APIC", LOCAL_APIC, APIC_LEN),
        tenant("identity map", KVM_IDENTITY_MAP, 0x1000),
        tenant("TSS", KVM_TSS, KVM_TSS_LEN),
        tenant("DAX", DAX, DAX_LEN),
        tenant("64-bit BARs", BAR64, BAR64_LEN),
    ];
    for index in 0..devices {
        let window = virtio_mmio(index).0;
        all.push(tenant(
            format!("device {index}"),
            window,
            VIRTIO_MMIO_STRIDE,
        ));
    }
    all
}

/// No two of them share an address.
fn assert_disjoint(mut tenants: Vec<Tenant>) {
    tenants.sort_by_key(|tenant| tenant.start);
    for pair in tenants.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        assert!(
            one.end <= next.start,
            "{} ends at {:#x}, {} begins at {:#x}",
            one.name,
            one.end,
            next.name,
            next.start
        );
    }
}

fn within(inner: &Tenant, outer: &[Tenant]) -> bool {
    outer
        .iter()
        .any(|outer| outer.start <= inner.start && inner.end <= outer.end)
}

/// Sizes of memory in MiB: any, and those around the places where the layout changes.
fn mib() -> impl Strategy<Value = u64> {
    let around = |gib: u64| (gib << 10).saturating_sub(3).max(32)..(gib << 10) + 3;
    prop_oneof![
        32..=RAM_MAX >> 20,
        32..300u64,
        around(3),
        around(4),
        around(1)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_as_large_as_asked_and_shares_nothing_with_devices(
        mib in mib(),
        devices in 0..=VIRTIO_MMIO_MAX_DEVICES,
    ) {
        let bytes = mib << 20;
        let memory: Vec<_> = ram(bytes)
            .into_iter()
            .map(|(at, len)| tenant("memory", at.0, len))
            .collect();
        prop_assert_eq!(memory.iter().map(|part| part.end - part.start).sum::<u64>(), bytes);
        let mut all = outside(devices);
        all.extend(memory);
        assert_disjoint(all);
    }

    #[test]
    fn the_map_that_a_kernel_sees_names_all_memory_but_the_hole_and_no_more(mib in mib()) {
        let bytes = mib << 20;
        let memory: Vec<_> = ram(bytes)
            .into_iter()
            .map(|(at, len)| tenant("memory", at.0, len))
            .collect();
        let map: Vec<_> = e820::map(bytes)
            .into_iter()
            .map(|entry| (entry.kind, tenant(format!("{:?}", entry.kind), entry.start, entry.len)))
            .collect();
        let usable: Vec<_> = map.iter().filter(|(kind, _)| *kind == Kind::Ram).collect();
        for (_, entry) in &usable {
            prop_assert!(within(entry, &memory), "{:?}", entry);
        }
        // All of it, but for the MP table and the PC's hole.
        let named: u64 = usable.iter().map(|(_, entry)| entry.end - entry.start).sum();
        prop_assert_eq!(named, bytes - (KERNEL_START - MPTABLE));
        assert_disjoint(map.into_iter().map(|(_, entry)| entry).collect());
    }

    #[test]
    fn the_boot_tables_lie_in_memory_and_on_nothing_else(
        mib in mib(),
        vcpus in 1..=32u8,
        initramfs in prop::option::of(1..4000u64),
    ) {
        let bytes = mib << 20;
        let initramfs = initramfs.map(|len| Initramfs { at: GuestAddress(KERNEL_START), len });
        let placed = [
            ("GDT", tables::gdt()),
            ("MP table", mptable::table(vcpus)),
            ("identity map", tables::identity_map()),
            ("PVH", pvh::start_info(&e820::map(bytes), initramfs)),
        ];
        let mut tenants: Vec<_> = placed
            .into_iter()
            .map(|(name, placed)| tenant(name, placed.at.0, placed.bytes.len() as u64))
            .collect();
        tenants.push(tenant("zero page", ZERO_PAGE, ZERO_PAGE_LEN));
        tenants.push(tenant("command line", CMDLINE, CMDLINE_MAX_LEN));
        prop_assert!(tenants.iter().all(|tenant| tenant.end <= LEGACY_HOLE));
        tenants.push(tenant("the rest", LEGACY_HOLE, bytes));
        assert_disjoint(tenants);
    }

    #[test]
    fn page_structures_lie_in_memory_below_an_initramfs(
        mib in mib(),
        initramfs_mib in prop::option::of(1..64u64),
    ) {
        let bytes = mib << 20;
        let low = bytes.min(MMIO32_START);
        // A loader puts it at the top of low memory.
        let initramfs = initramfs_mib
            .map(|len| GuestAddress(low - (len << 20).min(low / 2)));
        let (at, len) = page_structures(bytes, initramfs);
        let found = tenant("page structures", at.0, len);
        let memory: Vec<_> = ram(bytes)
            .into_iter()
            .map(|(at, len)| tenant("memory", at.0, len))
            .collect();
        prop_assert!(within(&found, &memory), "{:?}", found);
        if let (Some(initramfs), true) = (initramfs, bytes <= MMIO32_START) {
            prop_assert!(found.end <= initramfs.0);
        }
    }

    #[test]
    fn every_device_has_a_window_and_an_interrupt_of_its_own(
        one in 0..VIRTIO_MMIO_MAX_DEVICES,
        other in 0..VIRTIO_MMIO_MAX_DEVICES,
    ) {
        prop_assert_eq!(one == other, virtio_mmio(one) == virtio_mmio(other));
        prop_assert_eq!(one == other, virtio_gsi(one) == virtio_gsi(other));
        prop_assert!((GSI_START..GSI_END).contains(&virtio_gsi(one)));
        prop_assert_ne!(virtio_gsi(one), SERIAL_GSI);
    }
}
