//! `USER[:GROUP]`, looked up in the image's own /etc/passwd and /etc/group, as Docker does.
//!
//! Invariants: nothing outside the root is read, whatever those files are; reads are bounded and do not block.

use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use crate::error::{Attempt, Error, Kind, Refusal, Step};
use crate::inside::Root;
use crate::spec;

/// The largest /etc/passwd or /etc/group that is read; real ones are a thousand times smaller.
const MAX_FILE_LEN: u64 = 4 << 20;
/// The largest user or group number that a request or an image's file may name, as with Docker.
const MAX_ID: u32 = i32::MAX as u32;
/// The most supplementary groups (NGROUPS_MAX).
const MAX_GROUPS: usize = 65536;

/// The user of the container's process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one among them.
    pub(crate) groups: Vec<u32>,
    /// The home directory, if the image names one.
    pub(crate) home: Option<String>,
}

/// A line of passwd(5), as far as it matters.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// The identity to look up.
pub(crate) struct Wanted<'a> {
    /// `USER[:GROUP]`; replaces the document's numbers.
    pub(crate) user: Option<&'a str>,
    /// The document's numbers.
    pub(crate) document: &'a spec::User,
    /// Supplementary groups by name or number.
    pub(crate) groups: &'a [String],
}

/// The identity that is wanted, as the files of a root name it.
pub(crate) fn find(root: &Root, wanted: &Wanted<'_>) -> Result<Identity, Error> {
    let mut identity = match wanted.user.filter(|user| !user.is_empty()) {
        Some(user) => by_name(root, user)?,
        None => by_number(root, wanted.document)?,
    };
    let file = match wanted.groups {
        [] => String::new(),
        _ => read(root, "/etc/group")?,
    };
    let mut groups = wanted.document.additional_gids.clone();
    groups.append(&mut identity.groups);
    for group in wanted.groups {
        groups.push(gid_of(&file, group, group)?);
    }
    identity.groups = with_primary(identity.gid, &groups);
    Ok(identity)
}

/// The identity of a document's numbers; only the home directory is looked up. Its numbers may be any but -1, which
/// would mean "no change" to the kernel.
fn by_number(root: &Root, document: &spec::User) -> Result<Identity, Error> {
    let numbers = [document.uid, document.gid];
    let mut numbers = numbers.iter().chain(&document.additional_gids);
    if let Some(number) = numbers.find(|&&number| number == u32::MAX) {
        return Err(Refusal::OutOfRange).at(Step::User, number);
    }
    // Only the home directory is looked up: an unreadable file is no reason to fail.
    let passwd = read(root, "/etc/passwd").unwrap_or_default();
    let home = accounts(&passwd)
        .find(|account| account.uid == document.uid)
        .map(|a| a.home.to_owned());
    Ok(Identity {
        uid: document.uid,
        gid: document.gid,
        groups: Vec::new(),
        home,
    })
}

/// The identity that `USER[:GROUP]` names, with the groups that its user is a member of.
fn by_name(root: &Root, wanted: &str) -> Result<Identity, Error> {
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read(root, "/etc/passwd")?;
    let number = Number::of(user);
    let account = accounts(&passwd)
        .find(|a| a.name == user)
        .or_else(|| accounts(&passwd).find(|account| number == Number::Id(account.uid)));
    let uid = match &account {
        Some(account) => in_range(account.uid, wanted)?,
        None => number.known(wanted, Refusal::NoSuchUser)?,
    };
    let file = read(root, "/etc/group")?;
    let mut groups = Vec::new();
    let gid = match (group, &account) {
        (Some(group), _) => gid_of(&file, group, wanted)?,
        (None, Some(account)) => {
            let is_member = |g: &Group<'_>| g.members.split(',').any(|m| m == account.name);
            groups.extend(
                groups_of(&file)
                    .filter(is_member)
                    .map(|g| g.gid)
                    .filter(|&gid| gid <= MAX_ID)
                    .take(MAX_GROUPS),
            );
            in_range(account.gid, wanted)?
        }
        (None, None) => 0,
    };
    Ok(Identity {
        uid,
        gid,
        groups,
        home: account.map(|account| account.home.to_owned()),
    })
}

/// The number of a group by name or number, as /etc/group has it.
fn gid_of(file: &str, group: &str, wanted: &str) -> Result<u32, Error> {
    let number = Number::of(group);
    let found = groups_of(file)
        .find(|g| g.name == group)
        .or_else(|| groups_of(file).find(|g| number == Number::Id(g.gid)));
    match found {
        Some(found) => in_range(found.gid, wanted),
        None => number.known(wanted, Refusal::NoSuchGroup),
    }
}

/// The groups without repetition. The primary one is always among them, so that a program which gives it up does
/// not gain what is denied to the group (CVE-2022-36109).
fn with_primary(gid: u32, more: &[u32]) -> Vec<u32> {
    let mut groups: Vec<u32> = std::iter::once(gid).chain(more.iter().copied()).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.truncate(MAX_GROUPS);
    groups
}

/// A user or group as a request names it: a number or a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    /// A number in the range that Docker allows.
    Id(u32),
    /// A number outside of it.
    OutOfRange,
    /// Not a number.
    Name,
}

impl Number {
    fn of(text: &str) -> Number {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Number::Name;
        }
        match text.parse() {
            Ok(number) if number <= MAX_ID => Number::Id(number),
            _ => Number::OutOfRange,
        }
    }

    /// The number, for which nothing was found; a name that was not found is `unknown`.
    fn known(self, wanted: &str, unknown: Refusal) -> Result<u32, Error> {
        let refusal = match self {
            Number::Id(number) => return Ok(number),
            Number::OutOfRange => Refusal::IdOutOfRange,
            Number::Name => unknown,
        };
        Err(Error::new(Step::User, wanted, refusal).of_kind(Kind::UnknownUser))
    }
}

/// The image's files may hold any number.
fn in_range(number: u32, wanted: &str) -> Result<u32, Error> {
    match number <= MAX_ID {
        true => Ok(number),
        false => {
            Err(Error::new(Step::User, wanted, Refusal::IdOutOfRange).of_kind(Kind::UnknownUser))
        }
    }
}

/// A number of the image's files. One that is larger than the kernel's is as good as its largest: out of range.
fn number(text: &str) -> Option<u32> {
    let number: u64 = text.parse().ok()?;
    Some(u32::try_from(number).unwrap_or(u32::MAX))
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn groups_of(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?)?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or(""),
        })
    })
}

/// A file of the image; an absent one is empty.
fn read(root: &Root, path: &str) -> Result<String, Error> {
    // Not blocking: the image may have put a FIFO there.
    let file = match root.get(
        Path::new(path),
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
    ) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno).at(Step::User, format_args!("in {path}")),
    };
    let stat = rustix::fs::fstat(&file).at(Step::User, format_args!("in {path}"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Refusal::NotARegularFile).at(Step::User, format_args!("in {path}"));
    }
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(file).take(MAX_FILE_LEN + 1);
    file.read_to_end(&mut bytes)
        .at(Step::User, format_args!("in {path}"))?;
    if bytes.len() as u64 > MAX_FILE_LEN {
        return Err(Refusal::TooLarge).at(Step::User, format_args!("in {path}"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn image() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/var/www:/x\n1000:x:7:7::/n:\n";
        fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        let group = "root:x:0:\nweb:x:34:\nvideo:x:44:a,web\naudio:x:45:web,b\n";
        fs::write(dir.path().join("etc/group"), group).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn named(root: &Root, user: &str, groups: &[&str]) -> Result<Identity, Error> {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let wanted = Wanted {
            user: Some(user),
            document: &spec::User::default(),
            groups: &groups,
        };
        find(root, &wanted)
    }

    fn known(wanted: &str) -> (u32, u32, Vec<u32>, Option<String>) {
        let (_dir, root) = image();
        let identity = named(&root, wanted, &[]).unwrap();
        (identity.uid, identity.gid, identity.groups, identity.home)
    }

    #[test]
    fn names_and_numbers_mean_what_they_mean_to_docker() {
        assert_eq!(
            known("web"),
            (33, 34, vec![34, 44, 45], Some("/var/www".into()))
        );
        assert_eq!(
            known("33"),
            (33, 34, vec![34, 44, 45], Some("/var/www".into()))
        );
        assert_eq!(
            known("web:audio"),
            (33, 45, vec![45], Some("/var/www".into()))
        );
        assert_eq!(known("web:9"), (33, 9, vec![9], Some("/var/www".into())));
        assert_eq!(known("77"), (77, 0, vec![0], None));
        assert_eq!(known("77:video"), (77, 44, vec![44], None));
        assert_eq!(known(":video"), (0, 44, vec![44], Some("/root".into())));
        // A name made of digits is a name first.
        assert_eq!(known("1000").0, 7);
    }

    #[test]
    fn unknown_names_and_numbers_out_of_range_are_told_apart() {
        let (dir, root) = image();
        let passwd = dir.path().join("etc/passwd");
        let text = fs::read_to_string(&passwd).unwrap();
        let more = "minus:x:4294967295:0::/:\nhuge:x:99999999999:0::/:\nbig:x:5:3000000000::/:\n";
        fs::write(&passwd, text + more).unwrap();
        let cause = |wanted: &str, groups: &[&str]| {
            let error = named(&root, wanted, groups).unwrap_err();
            assert_eq!(error.kind, Kind::UnknownUser, "{wanted}");
            error.cause
        };
        let refused = crate::error::Cause::Refused;
        for wanted in ["nobody", "-x", "+1"] {
            assert_eq!(cause(wanted, &[]), refused(Refusal::NoSuchUser), "{wanted}");
        }
        for wanted in [
            "-1",
            "3000000000",
            "4294967295",
            "99999999999999999999999",
            "web:2147483648",
            ":3000000000",
            // The kernel would take -1 as "no change", and leave the process to root.
            "minus",
            "huge",
            "big",
        ] {
            assert_eq!(
                cause(wanted, &[]),
                refused(Refusal::IdOutOfRange),
                "{wanted}"
            );
        }
        assert_eq!(cause("web:nogroup", &[]), refused(Refusal::NoSuchGroup));
        assert_eq!(cause("web", &["nogroup"]), refused(Refusal::NoSuchGroup));
        assert_eq!(
            cause("web", &["3000000000"]),
            refused(Refusal::IdOutOfRange)
        );
        let last = named(&root, "2147483647:2147483647", &["2147483647"]).unwrap();
        assert_eq!((last.uid, last.gid), (2_147_483_647, 2_147_483_647));
    }

    #[test]
    fn hostile_files_are_refused_and_never_waited_for() {
        let (dir, root) = image();
        let passwd = dir.path().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &passwd, rustix::fs::Mode::RWXU).unwrap();
        assert!(named(&root, "web", &[]).is_err());
        fs::remove_file(&passwd).unwrap();
        fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
        assert!(named(&root, "web", &[]).is_err());
        fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &passwd).unwrap();
        assert!(named(&root, "web", &[]).is_err());
    }

    #[test]
    fn a_documents_number_may_be_any_but_minus_one() {
        let (_dir, root) = image();
        let find = |uid, gid, group| {
            let document = spec::User {
                uid,
                gid,
                additional_gids: vec![group],
                ..spec::User::default()
            };
            let wanted = Wanted {
                user: None,
                document: &document,
                groups: &["audio".to_owned()],
            };
            super::find(&root, &wanted)
        };
        let found = find(3_000_000_000, u32::MAX - 1, 7).unwrap();
        assert_eq!(found.uid, 3_000_000_000);
        assert_eq!(found.groups, [7, 45, u32::MAX - 1]);
        for (uid, gid, group) in [(u32::MAX, 0, 0), (0, u32::MAX, 0), (0, 0, u32::MAX)] {
            assert_eq!(find(uid, gid, group).unwrap_err().kind, Kind::Invalid);
        }
    }

    #[test]
    fn an_image_without_the_files_has_numbers_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(named(&root, "5:6", &["9"]).unwrap().groups, [6, 9]);
        assert_eq!(named(&root, "x", &[]).unwrap_err().kind, Kind::UnknownUser);
    }
}
