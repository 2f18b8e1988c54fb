//! Tars, built header by header, so that tests can make malformed ones.

/// An entry.
#[derive(Clone, Copy)]
pub(super) struct E<'a> {
    pub(super) path: &'a str,
    pub(super) flag: u8,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: u64,
    pub(super) link: &'a str,
    pub(super) device: (u64, u64),
    pub(super) data: &'a [u8],
    /// What the header says instead of the data's length.
    pub(super) size: Option<u64>,
    pub(super) pax: &'a [(&'a str, &'a [u8])],
}

impl E<'_> {
    pub(super) const FILE: E<'static> = E {
        path: "",
        flag: b'0',
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 0,
        link: "",
        device: (0, 0),
        data: b"",
        size: None,
        pax: &[],
    };
    pub(super) const HARD_LINK: E<'static> = E {
        flag: b'1',
        ..E::FILE
    };
    pub(super) const SYMLINK: E<'static> = E {
        flag: b'2',
        ..E::FILE
    };
    pub(super) const CHAR: E<'static> = E {
        flag: b'3',
        ..E::FILE
    };
    pub(super) const BLOCK: E<'static> = E {
        flag: b'4',
        ..E::FILE
    };
    pub(super) const DIR: E<'static> = E {
        flag: b'5',
        mode: 0o755,
        ..E::FILE
    };
    pub(super) const FIFO: E<'static> = E {
        flag: b'6',
        ..E::FILE
    };
}

/// A tar that grows.
#[derive(Default, Clone)]
pub(super) struct Archive(pub(super) Vec<u8>);

impl Archive {
    pub(super) fn add(&mut self, e: E<'_>) {
        if !e.pax.is_empty() {
            self.raw_extension(b'x', &records(e.pax));
        }
        let mut header = header(e.path, e.flag, e.size.unwrap_or(e.data.len() as u64));
        octal(&mut header[100..108], e.mode.into());
        octal(&mut header[108..116], e.uid);
        octal(&mut header[116..124], e.gid);
        octal(&mut header[136..148], e.mtime);
        header[157..][..e.link.len()].copy_from_slice(e.link.as_bytes());
        octal(&mut header[329..337], e.device.0);
        octal(&mut header[337..345], e.device.1);
        self.push(header);
        self.data(e.data);
    }

    /// A global extended header.
    pub(super) fn global(&mut self, pax: &[(&str, &[u8])]) {
        self.raw_extension(b'g', &records(pax));
    }

    /// An extension header with its body.
    pub(super) fn raw_extension(&mut self, flag: u8, body: &[u8]) {
        self.push(header("extension", flag, body.len() as u64));
        self.data(body);
    }

    /// A sparse file in GNU's own format, each segment in a block of its own after the first four.
    pub(super) fn gnu_sparse(&mut self, path: &str, size: u64, map: &[(u64, u64)], data: &[u8]) {
        let mut header = header(path, b'S', data.len() as u64);
        header[257..265].copy_from_slice(b"ustar  \0");
        let (first, more) = map.split_at(map.len().min(1));
        for (i, (offset, len)) in first.iter().enumerate() {
            octal(&mut header[386 + i * 24..][..12], *offset);
            octal(&mut header[398 + i * 24..][..12], *len);
        }
        header[482] = u8::from(!more.is_empty());
        octal(&mut header[483..495], size);
        self.push(header);
        for (i, (offset, len)) in more.iter().enumerate() {
            let mut block = [0; 512];
            octal(&mut block[..12], *offset);
            octal(&mut block[12..24], *len);
            block[504] = u8::from(i + 1 < more.len());
            self.0.extend(block);
        }
        self.data(data);
    }

    /// A header, its checksum made right.
    pub(super) fn push(&mut self, mut header: [u8; 512]) {
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut header[148..155], sum);
        self.0.extend(header);
    }

    pub(super) fn data(&mut self, data: &[u8]) {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    /// The tar, ended as GNU tar does.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0.resize(self.0.len().next_multiple_of(10240), 0);
        self.0
    }
}

pub(super) fn header(path: &str, flag: u8, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    header[..path.len()].copy_from_slice(path.as_bytes());
    octal(&mut header[124..136], size);
    header[156] = flag;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header
}

/// A number as octal, or in base 256 where that is too short.
fn octal(field: &mut [u8], value: u64) {
    let digits = format!("{value:0width$o}", width = field.len() - 1);
    if digits.len() < field.len() {
        field[..digits.len()].copy_from_slice(digits.as_bytes());
    } else {
        let at = field.len() - 8;
        field[at..].copy_from_slice(&value.to_be_bytes());
        field[0] |= 0x80;
    }
}

fn records(pax: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (key, value) in pax {
        let rest = [b" ", key.as_bytes(), b"=", *value, b"\n"].concat();
        let mut len = rest.len();
        while len != rest.len() + len.to_string().len() {
            len = rest.len() + len.to_string().len();
        }
        all.extend(len.to_string().as_bytes());
        all.extend(rest);
    }
    all
}
