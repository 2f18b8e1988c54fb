//! What the outside sets for a process, or for the machine on its behalf.

use rustix::process::{Pid, Resource, Rlimit};

use crate::error::{Attempt, Error, Step};

/// The most files that any process of the machine may have open.
const NR_OPEN: &str = "/proc/sys/fs/nr_open";
/// The largest value of fs.nr_open (fs/file.c: sysctl_nr_open_max, on 64 bits).
const MAX_NR_OPEN: u64 = 0x7fff_ffc0;

/// Sets how a process is chosen when memory runs out.
pub(crate) fn set_oom_score(pid: Pid, score: i32) -> Result<(), Error> {
    std::fs::write(
        format!("/proc/{}/oom_score_adj", pid.as_raw_pid()),
        score.to_string(),
    )
    .at(Step::OomScore, score)
}

/// Raises the machine's own bound of open files where a process is to have more.
pub(crate) fn raise_machines(rlimits: &[(Resource, Rlimit)]) -> Result<(), Error> {
    let files = rlimits.iter().find(|(kind, _)| *kind == Resource::Nofile);
    let Some((_, limit)) = files else {
        return Ok(());
    };
    let wanted = limit.maximum.unwrap_or(MAX_NR_OPEN).min(MAX_NR_OPEN);
    let bound = std::fs::read_to_string(NR_OPEN).at(Step::ResourceLimit, NR_OPEN)?;
    if bound.trim().parse().is_ok_and(|bound: u64| bound < wanted) {
        std::fs::write(NR_OPEN, wanted.to_string())
            .at(Step::ResourceLimit, format_args!("{NR_OPEN} to {wanted}"))?;
    }
    Ok(())
}
