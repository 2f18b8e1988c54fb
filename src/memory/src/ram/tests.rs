use std::io::{Read, Seek, Write};

use vm_memory::Bytes;

use super::*;

fn ram() -> Ram {
    Ram::new(&[
        (GuestAddress(0), 0x10000),
        (GuestAddress(0x1_0000_0000), 0x4000),
    ])
    .unwrap()
}

#[test]
fn slots_name_every_region_once_and_in_order() {
    let slots = ram().slots();
    assert_eq!(
        slots.iter().map(|s| (s.guest.0, s.len)).collect::<Vec<_>>(),
        [(0, 0x10000), (0x1_0000_0000, 0x4000)]
    );
    assert!(slots.iter().all(|slot| slot.host != 0));
}

#[test]
fn a_mapped_file_is_seen_and_never_changed() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 5000]).unwrap();
    let mut ram = ram();
    let range = ram
        .map_file(GuestAddress(0x2000), &file, 0, 0x2000)
        .unwrap();
    assert_eq!(range[1] - range[0], 0x2000);
    let byte = |at| ram.memory().read_obj::<u8>(GuestAddress(at)).unwrap();
    assert_eq!([byte(0x1fff), byte(0x2000), byte(0x2000 + 4999)], [0, 7, 7]);
    assert_eq!([byte(0x2000 + 5000), byte(0x4000)], [0, 0]);
    ram.memory().write_obj(9u8, GuestAddress(0x2000)).unwrap();
    file.rewind().unwrap();
    let mut first = [0];
    file.read_exact(&mut first).unwrap();
    assert_eq!(first, [7]);
}

#[test]
fn what_shared_ram_holds_is_taken_up_and_left_unchanged() {
    let regions = [
        (GuestAddress(0), 0x10000),
        (GuestAddress(0x1_0000_0000), 0x4000),
    ];
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x14000).unwrap();
    let mut kernel = tempfile::tempfile().unwrap();
    kernel.write_all(&[5; 5000]).unwrap();
    let mut saved = Ram::shared(&regions, file.try_clone().unwrap()).unwrap();
    let (low, high) = (GuestAddress(0x3000), GuestAddress(0x1_0000_3ff0));
    saved.memory().write_obj(7u8, low).unwrap();
    saved.memory().write_obj(8u8, high).unwrap();
    saved
        .map_file(GuestAddress(0x8000), &kernel, 0, 0x2000)
        .unwrap();
    assert!(saved.file_ranges().is_empty());
    drop(saved);

    for _ in 0..2 {
        let mut ram = Ram::new(&regions).unwrap();
        ram.map_saved(&file).unwrap();
        let byte = |at| ram.memory().read_obj::<u8>(at).unwrap();
        assert_eq!([byte(low), byte(high)], [7, 8]);
        assert_eq!(byte(GuestAddress(0x8000 + 4999)), 5);
        assert_eq!(
            [0x8000 + 5000, 0, 0xf000].map(|at| byte(GuestAddress(at))),
            [0; 3]
        );
        let mapped: u64 = ram.file_ranges().iter().map(|[a, b]| b - a).sum();
        assert!(mapped < 0x14000, "{mapped:#x}");
        ram.memory().write_obj(9u8, low).unwrap();
    }
}

#[test]
fn a_saved_memory_of_another_size_is_refused() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x13000).unwrap();
    let refused = ram().map_saved(&file).unwrap_err();
    assert!(matches!(refused, Error::SavedLength { .. }));
    let refused = Ram::shared(&[(GuestAddress(0), 0x1000)], file).unwrap_err();
    assert!(matches!(refused, Error::SavedLength { .. }));
}

#[test]
fn a_mapping_outside_one_region_or_off_a_page_is_refused() {
    let file = tempfile::tempfile().unwrap();
    let mut ram = ram();
    for (at, offset, len) in [
        (0xf000, 0, 0x2000),
        (0x8_0000, 0, 0x1000),
        (0x10, 0, 0x1000),
        (0, 0x10, 0x1000),
        (0, 0, 0x10),
        (0, 0, 0),
        (0x1000, 0, !0xfff),
    ] {
        let result = ram.map_file(GuestAddress(at), &file, offset, len);
        assert!(
            matches!(result, Err(Error::Range { .. })),
            "{at:#x} {offset:#x} {len:#x}"
        );
    }
}
