//! Calls that are newer than libseccomp, which knows no names for them.
//!
//! ```text
//! below 451 (or x32):  the profile's program, which begins right behind
//! named by the profile: as it says
//! not named:           ENOSYS, so that C libraries try an older way; what a profile allows by default is allowed
//! ```
//!
//! Since Linux 5.1 every architecture gives new calls the same numbers.

use libseccomp::ScmpAction;

use super::prologue::{Code, EQUALS, ERRNO, INSTRUCTION_LEN, LOAD, NR, RETURN, encode};
use super::{Error, Profile};

/// What libseccomp 2.5.4, the oldest in use, does not know: the numbers from here on, in order.
const FIRST: u32 = 451;
const NAMES: [&str; 19] = [
    "cachestat",
    "fchmodat2",
    "map_shadow_stack",
    "futex_wake",
    "futex_wait",
    "futex_requeue",
    "statmount",
    "listmount",
    "lsm_get_self_attr",
    "lsm_set_self_attr",
    "lsm_list_modules",
    "mseal",
    "setxattrat",
    "getxattrat",
    "listxattrat",
    "removexattrat",
    "open_tree_attr",
    "file_getattr",
    "file_setattr",
];
/// x32 numbers begin here.
const X32: u32 = 0x4000_0000;
/// BPF_JMP | BPF_JGE | BPF_K
const AT_LEAST: u16 = 0x35;
/// ENOSYS
const UNKNOWN: u32 = ERRNO | libc::ENOSYS as u32;
/// SECCOMP_RET_ACTION_FULL
const ACTION: u32 = 0xffff_0000;

/// What the kernel is told for an action: the value that a program returns (linux/seccomp.h).
fn verdict(name: &str, errno: Option<u32>) -> Result<u32, Error> {
    Ok(match super::action(name, errno)? {
        ScmpAction::Allow => 0x7fff_0000,
        ScmpAction::Log => 0x7ffc_0000,
        ScmpAction::Trace(message) => 0x7ff0_0000 | u32::from(message),
        ScmpAction::Errno(errno) => ERRNO | (errno as u32 & 0xffff),
        ScmpAction::Trap => 0x0003_0000,
        ScmpAction::KillThread => 0,
        ScmpAction::KillProcess => 0x8000_0000,
        _ => return Err(Error::Unsupported(format!("the action {name}"))),
    })
}

/// The instructions to stand before the profile's own program.
pub(super) fn before(profile: &Profile, capabilities: &[String]) -> Result<Vec<u8>, Error> {
    let default = verdict(&profile.default_action, profile.default_errno_ret)?;
    let refuses = default & ACTION == UNKNOWN & ACTION;
    let mut decisions: Vec<Code> = Vec::new();
    for (number, name) in (FIRST..).zip(NAMES) {
        let named = |rule: &&super::Rule| {
            let mut names = rule.names.iter().flatten().chain(&rule.name);
            rule.applies(capabilities) && names.any(|named| named == name)
        };
        let Some(rule) = profile.syscalls.iter().find(named) else {
            continue;
        };
        if rule.args.as_ref().is_some_and(|args| !args.is_empty()) {
            return Err(Error::Unsupported(format!("conditions on {name}")));
        }
        let verdict = verdict(&rule.action, rule.errno_ret)?;
        decisions.extend([(EQUALS, 0, 1, number), (RETURN, 0, 0, verdict)]);
    }
    decisions.push((RETURN, 0, 0, if refuses { UNKNOWN } else { default }));
    // At most two for each name and one: within a jump's reach.
    let beyond = u8::try_from(decisions.len()).expect("few names");
    let head = [
        (LOAD, 0, 0, NR),
        (AT_LEAST, beyond + 1, 0, X32),
        (AT_LEAST, 0, beyond, FIRST),
    ];
    let instructions = head.into_iter().chain(decisions);
    let mut bytes = Vec::with_capacity((usize::from(beyond) + 3) * INSTRUCTION_LEN);
    bytes.extend(instructions.flat_map(encode));
    Ok(bytes)
}
