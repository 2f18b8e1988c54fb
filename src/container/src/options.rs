//! Mount options: words of mount(8) and of the OCI specification ("Linux mount options"), as attributes and data.

use rustix::mount::MountPropagationFlags as Propagation;
use sys::mount::Attributes;

use crate::error::{Error, Refusal, Step};

// linux/mount.h
const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const RELATIME: u64 = 0x0;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// Attributes by name: what each sets and clears. With an "r" before it, it is recursive.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("relatime", RELATIME, ATIME),
    ("norelatime", STRICTATIME, ATIME),
    ("noatime", NOATIME, ATIME),
    ("atime", RELATIME, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", RELATIME, ATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
];

const PROPAGATIONS: [(&str, Propagation); 4] = [
    ("private", Propagation::PRIVATE),
    ("shared", Propagation::SHARED),
    ("slave", Propagation::DOWNSTREAM),
    ("unbindable", Propagation::UNBINDABLE),
];

/// A mount's options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// For this mount.
    pub(crate) attributes: Attributes,
    /// For this mount and those below it.
    pub(crate) recursive_attributes: Attributes,
    /// `MS_*` and whether it goes for the mounts below, too.
    pub(crate) propagation: Option<(u64, bool)>,
    /// A bind mount: with what is mounted below the source or without.
    pub(crate) bind: Option<bool>,
    /// What the file system itself understands.
    pub(crate) data: Vec<(String, Option<String>)>,
}

impl Options {
    /// Reads options. Those that are unknown here are the file system's; it refuses what it does not know.
    pub(crate) fn parse(words: &[String]) -> Result<Options, Error> {
        let mut options = Options::default();
        for word in words {
            options.add(word)?;
        }
        Ok(options)
    }

    fn add(&mut self, word: &str) -> Result<(), Error> {
        let attribute = |word: &str| ATTRIBUTES.iter().find(|(name, ..)| *name == word);
        let recursive_attribute = word.strip_prefix('r').and_then(attribute);
        if let Some(&(_, set, clear)) = attribute(word) {
            apply(&mut self.attributes, set, clear);
        } else if let Some(&(_, set, clear)) = recursive_attribute {
            apply(&mut self.recursive_attributes, set, clear);
        } else if let Some(propagation) = propagation(word) {
            self.propagation = Some(propagation);
        } else {
            match word {
                "bind" => self.bind = Some(self.bind.unwrap_or(false)),
                "rbind" => self.bind = Some(true),
                "defaults" | "" => {}
                "remount" | "idmap" | "ridmap" | "tmpcopyup" => {
                    return Err(Error::new(Step::MountOption, word, Refusal::NotBuilt));
                }
                word => self.data.push(match word.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (word.to_owned(), None),
                }),
            }
        }
        Ok(())
    }
}

/// Later options win over earlier ones.
fn apply(attributes: &mut Attributes, set: u64, clear: u64) {
    attributes.set = attributes.set & !clear | set;
    // The kernel wants the access time's field cleared as a whole when it is set; it takes one bit nowhere else
    // both ways.
    attributes.clear = attributes.clear & !set | clear;
}

/// `MS_*` of a propagation's name, and whether it is recursive.
pub(crate) fn propagation(word: &str) -> Option<(u64, bool)> {
    let find = |word: &str| PROPAGATIONS.iter().find(|(name, _)| *name == word);
    find(word)
        .map(|(_, flag)| (u64::from(flag.bits()), false))
        .or_else(|| Some((u64::from(find(word.strip_prefix('r')?)?.1.bits()), true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn later_options_win() {
        assert_eq!(
            parse(&["ro", "rw"]).attributes,
            Attributes {
                clear: RDONLY,
                ..Default::default()
            }
        );
        assert_eq!(
            parse(&["rw", "ro"]).attributes,
            Attributes {
                set: RDONLY,
                ..Default::default()
            }
        );
        let atime = parse(&["noatime", "strictatime"]).attributes;
        assert_eq!((atime.set, atime.clear), (STRICTATIME, ATIME));
        let relatime = parse(&["noatime", "relatime"]).attributes;
        assert_eq!((relatime.set, relatime.clear), (0, ATIME));
    }

    #[test]
    fn recursive_words_are_told_from_words_that_begin_with_r() {
        let options = parse(&["rro", "relatime", "rbind", "rslave", "rnoexec"]);
        assert_eq!(options.recursive_attributes.set, RDONLY | NOEXEC);
        assert_eq!(options.attributes.clear, ATIME);
        assert_eq!(options.bind, Some(true));
        assert_eq!(
            options.propagation,
            Some((Propagation::DOWNSTREAM.bits().into(), true))
        );
    }

    #[test]
    fn what_is_unknown_is_left_to_the_file_system() {
        let options = parse(&["nosuid", "size=65536k", "mode=1777", "newinstance"]);
        let data: Vec<_> = options
            .data
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_deref()))
            .collect();
        assert_eq!(
            data,
            [
                ("size", Some("65536k")),
                ("mode", Some("1777")),
                ("newinstance", None)
            ]
        );
        assert!(Options::parse(&["tmpcopyup".to_owned()]).is_err());
    }
}
