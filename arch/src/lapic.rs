//! The local APIC's vector table at reset.

/// Offset of the LINT0 register in the APIC's page (SDM vol. 3, table 11-1). LINT1 follows.
const LINT0: usize = 0x350;
const LINT1: usize = 0x360;
/// Delivery mode field of a local vector (SDM vol. 3, figure 11-8), bits 8 to 10.
const MODE_MASK: u32 = 0b111 << 8;
const MODE_NMI: u32 = 0b100 << 8;
const MODE_EXTINT: u32 = 0b111 << 8;

/// Wires LINT0 to the legacy interrupt controller and LINT1 to NMI, as firmware leaves them. `page` is the register
/// page as KVM_GET_LAPIC gives it, at least 0x364 bytes.
pub fn wire_lints(page: &mut [std::ffi::c_char]) {
    for (offset, mode) in [(LINT0, MODE_EXTINT), (LINT1, MODE_NMI)] {
        let register = &mut page[offset..offset + 4];
        let mut bytes = [0; 4];
        for (byte, &from) in bytes.iter_mut().zip(register.iter()) {
            *byte = from as u8;
        }
        let value = u32::from_le_bytes(bytes) & !MODE_MASK | mode;
        for (to, byte) in register.iter_mut().zip(value.to_le_bytes()) {
            *to = byte as std::ffi::c_char;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_delivery_modes_change() {
        let mut page = [0; 0x400];
        page[LINT0 + 2] = 1; // masked
        wire_lints(&mut page);
        assert_eq!(page[LINT0..LINT0 + 4], [0, 7, 1, 0]);
        assert_eq!(page[LINT1..LINT1 + 4], [0, 4, 0, 0]);
        assert_eq!(page.iter().filter(|&&byte| byte != 0).count(), 3);
    }
}
