//! Names of capabilities, and what `--cap-add` and `--cap-drop` make of Docker's default set.

use sys::capabilities::NAMES as ALL;

use crate::options::Options;

/// What a container has without options, as in Docker.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A name that is not a capability's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}; see capabilities(7) for their names")]
pub struct Unknown(pub String);

/// The capabilities of a container, as `CAP_…`, in the order of their numbers.
///
/// As Docker: ALL stands for every one; what is dropped by name stays dropped when ALL is added, and what is added by
/// name stays when ALL is dropped.
pub fn effective(add: &[String], drop: &[String]) -> Result<Vec<String>, Unknown> {
    let add = add
        .iter()
        .map(|name| known(name))
        .collect::<Result<Vec<_>, _>>()?;
    let drop = drop
        .iter()
        .map(|name| known(name))
        .collect::<Result<Vec<_>, _>>()?;
    let held = |name: &str| {
        if add.contains(&"ALL") {
            !drop.contains(&name)
        } else if drop.contains(&"ALL") {
            add.contains(&name)
        } else {
            (DEFAULT.contains(&name) && !drop.contains(&name)) || add.contains(&name)
        }
    };
    Ok(ALL
        .into_iter()
        .filter(|name| held(name))
        .map(|name| format!("CAP_{name}"))
        .collect())
}

/// What a container holds: all of them when it is privileged, whatever else is asked for, as in Docker.
pub fn of(options: &Options) -> Result<Vec<String>, Unknown> {
    let held = effective(&options.cap_add, &options.cap_drop)?;
    if options.privileged {
        return Ok(all());
    }
    Ok(held)
}

/// Every capability, as `CAP_…`.
pub(crate) fn all() -> Vec<String> {
    ALL.map(|name| format!("CAP_{name}")).to_vec()
}

fn known(name: &str) -> Result<&'static str, Unknown> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok("ALL");
    }
    ALL.into_iter()
        .find(|known| *known == bare)
        .ok_or_else(|| Unknown(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        effective(&owned(add), &owned(drop)).unwrap()
    }

    #[test]
    fn the_default_is_docker_s_fourteen() {
        assert_eq!(set(&[], &[]).len(), 14);
    }

    #[test]
    fn names_are_taken_with_and_without_prefix_in_any_case() {
        assert!(set(&["cap_net_admin", "SYS_TIME"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!set(&[], &["chown"]).contains(&"CAP_CHOWN".to_owned()));
    }

    #[test]
    fn all_yields_to_what_is_named() {
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]).len(), 40);
        assert_eq!(set(&["KILL"], &["all"]), ["CAP_KILL"]);
        assert!(set(&[], &["ALL"]).is_empty());
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert_eq!(effective(&["NET".into()], &[]), Err(Unknown("NET".into())));
    }
}
