//! The user and the group as whom a thread makes files (setfsuid(2), setfsgid(2)).
//!
//! Invariants: only the calling thread changes, and it changes back when the value is dropped. Capabilities stay as they are
//! where SECBIT_NO_SETUID_FIXUP is set; elsewhere those that concern files are lost until then, if root acts as another.
#![expect(unsafe_code, reason = "setfsuid and setfsgid have no safe wrapper")]

use std::io;
use std::marker::PhantomData;

use rustix::thread::CapabilitySet;

/// What it takes to serve files as their owners see them: give them away, reach them whatever their modes say, change what is
/// another's, and make them as another. Not CAP_FSETID, so that what is written loses its set-user-ID bit; not
/// CAP_DAC_READ_SEARCH, which opens files by handles; not CAP_MKNOD.
pub const OWNERSHIP: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// What the calls take for "tell me, change nothing": no user and no group has this number.
const NONE: u32 = u32::MAX;

/// The calling thread makes files as another user, until this is dropped.
#[derive(Debug)]
pub struct Acting {
    user: u32,
    group: u32,
    /// It belongs to the thread that made it.
    here: PhantomData<*const ()>,
}

impl Acting {
    /// Makes files as this user and this group. Fails with EPERM, and with nothing changed, where the thread may not, or
    /// where its user namespace does not have them.
    pub fn new(user: u32, group: u32) -> io::Result<Self> {
        let acting = Self {
            user: fs_user(NONE),
            group: fs_group(NONE),
            here: PhantomData,
        };
        if acting.group != group {
            fs_group(group);
        }
        if acting.user != user {
            fs_user(user);
        }
        if fs_group(NONE) == group && fs_user(NONE) == user {
            Ok(acting)
        } else {
            Err(io::Error::from_raw_os_error(libc::EPERM))
        }
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        fs_user(self.user);
        fs_group(self.group);
        // Otherwise what the thread makes from here on would belong to another user.
        assert_eq!(
            (fs_user(NONE), fs_group(NONE)),
            (self.user, self.group),
            "a thread can take its own user and group back"
        );
    }
}

/// The previous user. That it cannot be changed is not said.
fn fs_user(user: u32) -> u32 {
    // SAFETY: plain system call on an integer.
    unsafe { libc::syscall(libc::SYS_setfsuid, user) as u32 }
}

fn fs_group(group: u32) -> u32 {
    // SAFETY: plain system call on an integer.
    unsafe { libc::syscall(libc::SYS_setfsgid, group) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_itself_again_whether_it_could_change_or_not() {
        let before = (fs_user(NONE), fs_group(NONE));
        {
            let acting = Acting::new(4321, 8765);
            let expected = if acting.is_ok() { (4321, 8765) } else { before };
            assert_eq!((fs_user(NONE), fs_group(NONE)), expected);
        }
        assert_eq!((fs_user(NONE), fs_group(NONE)), before);
    }

    #[test]
    fn the_number_of_no_user_is_refused() {
        assert!(Acting::new(NONE, NONE).is_err());
    }
}
