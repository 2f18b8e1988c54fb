//! Kernels and initramfs. Checked: what is loaded lies in memory, and the file is never changed.

use std::fs::File;
use std::os::unix::fs::FileExt;

use arch::registers::Entry;
use memory::Ram;
use vmm::loader::{Kernel, load_initramfs, load_kernel};

use crate::file_of;
use crate::input::Input;

const RAM: u64 = 32 << 20;

/// A file that is longer than the bytes that it begins with.
fn sparse(input: &mut Input<'_>) -> (File, Vec<u8>, u64) {
    let more = u64::from(input.u16()) << 10;
    let bytes = input.rest().to_vec();
    let file = file_of(&bytes);
    let len = bytes.len() as u64 + more;
    file.set_len(len).expect("a file may be long");
    (file, bytes, len)
}

fn unchanged(file: &File, bytes: &[u8], len: u64) {
    let mut now = vec![0; bytes.len()];
    file.read_exact_at(&mut now, 0).expect("it is there");
    assert!(now == bytes, "the file was changed");
    assert_eq!(file.metadata().expect("a file").len(), len);
}

/// vmlinux and bzImage.
pub fn kernel(data: &[u8]) {
    let (file, bytes, len) = sparse(&mut Input::new(data));
    let mut ram = Ram::new(&arch::layout::ram(RAM)).expect("room");
    match load_kernel(&file, &mut ram) {
        Ok(kernel) => {
            assert!(kernel.end <= RAM);
            let entry = match kernel.entry {
                Entry::Pvh(at) => at.into(),
                Entry::Linux64(at) => at,
            };
            // A bzImage's entry is part of what is copied; a file shorter than that is the kernel's own affair.
            assert!(entry >= arch::layout::KERNEL_START, "{entry:#x}");
            let map = arch::e820::map(RAM);
            if let Entry::Linux64(_) = kernel.entry {
                let page = arch::linux::zero_page(kernel.header.as_ref(), &map, None);
                assert!(page.bytes.len() <= 4096);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    unchanged(&file, &bytes, len);
}

/// An initramfs above a kernel that ends anywhere.
pub fn initramfs(data: &[u8]) {
    let mut input = Input::new(data);
    let kernel = Kernel {
        entry: Entry::Linux64(arch::layout::KERNEL_START),
        header: None,
        end: match input.u8() & 1 {
            0 => u64::from(input.u32()) % RAM,
            _ => input.u64().min(RAM),
        },
        image: Vec::new(),
    };
    let (file, bytes, len) = sparse(&mut input);
    let mut ram = Ram::new(&arch::layout::ram(RAM)).expect("room");
    if let Ok(loaded) = load_initramfs(&file, &kernel, &mut ram) {
        assert!(loaded.at.0 >= kernel.end);
        assert_eq!(loaded.len, len);
        assert!(loaded.at.0 + loaded.len <= RAM);
    }
    unchanged(&file, &bytes, len);
}
