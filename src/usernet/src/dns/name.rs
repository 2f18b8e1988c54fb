//! Domain names (RFC 1035, 3.1), without regard to case.

use std::fmt;
use std::net::Ipv4Addr;

/// The longest label, in bytes (RFC 1035, 2.3.4).
pub(super) const MAX_LABEL: usize = 63;
/// The longest name with the lengths of its labels and its end, in bytes (same place).
pub(super) const MAX_NAME: usize = 255;

/// A name: its labels, each behind its length, in lower case, without the empty one at the end. A label may hold any
/// byte, a dot included; so names are not compared as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Name(Vec<u8>);

impl Name {
    /// A name as a person writes it, with or without the last dot; `None` if it cannot be one.
    pub fn parse(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut name = Name::default();
        for label in text.split('.') {
            name.push(label.as_bytes())?;
        }
        Some(name)
    }

    /// Adds a label at the end; `None` if label or name are then too long.
    pub(super) fn push(&mut self, label: &[u8]) -> Option<()> {
        let fits = self.0.len() + 1 + label.len() < MAX_NAME;
        if label.is_empty() || label.len() > MAX_LABEL || !fits {
            return None;
        }
        self.0.push(label.len() as u8);
        self.0.extend(label.iter().map(u8::to_ascii_lowercase));
        Some(())
    }

    /// The name in this domain; `None` if it is too long.
    pub(super) fn within(&self, domain: &Name) -> Option<Name> {
        let name = [&*self.0, &*domain.0].concat();
        (name.len() < MAX_NAME).then_some(Name(name))
    }

    /// What stands before a domain; `None` if the name is not below it.
    pub(super) fn below(&self, domain: &Name) -> Option<Name> {
        let end = self.0.len().checked_sub(domain.0.len())?;
        if end == 0 || self.0[end..] != domain.0 {
            return None;
        }
        let mut at = 0;
        // A label's length and content may look like the domain's: it has to begin where a label does.
        while at < end {
            at += 1 + usize::from(self.0[at]);
        }
        (at == end).then(|| Name(self.0[..end].to_vec()))
    }

    /// The labels, first to last.
    pub(super) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (&len, after) = rest.split_first()?;
            let (label, after) = after.split_at(usize::from(len));
            rest = after;
            Some(label)
        })
    }

    /// As it stands in a message, uncompressed.
    pub(super) fn wire(&self) -> impl Iterator<Item = u8> {
        self.0.iter().copied().chain([0])
    }

    /// The address that is asked about, if this is its name below in-addr.arpa (RFC 1035, 3.5).
    pub(super) fn reversed_address(&self) -> Option<Ipv4Addr> {
        let labels: Vec<&[u8]> = self.labels().take(7).collect();
        let [d, c, b, a, b"in-addr", b"arpa"] = labels[..] else {
            return None;
        };
        let mut octets = [0; 4];
        for (octet, label) in octets.iter_mut().zip([a, b, c, d]) {
            let text = str::from_utf8(label).ok()?;
            *octet = text.parse().ok()?;
            // `+1` and `01` are other names.
            if octet.to_string() != text {
                return None;
            }
        }
        Some(octets.into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, label) in self.labels().enumerate() {
            let dot = if number == 0 { "" } else { "." };
            write!(f, "{dot}{}", label.escape_ascii())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn case_and_the_last_dot_make_no_difference() {
        assert_eq!(name("Web.MyNet."), name("web.mynet"));
        assert_ne!(name("web"), name("web.mynet"));
        assert_eq!(name("WEB_1.a").to_string(), "web_1.a");
    }

    #[test]
    fn what_cannot_be_a_name_is_none() {
        let long = "a".repeat(64);
        let many = vec!["a"; 128].join(".");
        for text in ["", ".", "a..b", ".a", &long, &many] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
        assert!(Name::parse(&long[1..]).is_some());
        assert!(Name::parse(&many[2..]).is_some());
    }

    #[test]
    fn a_name_is_below_a_domain_by_whole_labels() {
        assert_eq!(name("web.my.net").below(&name("my.net")), Some(name("web")));
        for other in ["my.net", "net", "xmy.net", "web.my.net.x"] {
            assert_eq!(name(other).below(&name("my.net")), None, "{other}");
        }
        // One label whose content is what the labels `\x02my` would be.
        let mut trick = Name::default();
        trick.push(b"web\x02my").unwrap();
        assert_eq!(trick.below(&name("my")), None);
        assert_eq!(name("web").within(&name("my")), Some(name("web.my")));
    }

    #[test]
    fn reverse_names_are_addresses_written_backwards() {
        let address = Some(Ipv4Addr::new(10, 213, 0, 2));
        assert_eq!(name("2.0.213.10.IN-ADDR.arpa").reversed_address(), address);
        for other in [
            "2.0.213.in-addr.arpa",
            "02.0.213.10.in-addr.arpa",
            "+2.0.213.10.in-addr.arpa",
            "256.0.213.10.in-addr.arpa",
            "1.2.0.213.10.in-addr.arpa",
            "2.0.213.10.in-addr.arpa.x",
        ] {
            assert_eq!(name(other).reversed_address(), None, "{other}");
        }
    }
}
