//! `hull doctor`: what this host has and lacks, and how to mend it.

use clap::Args;
use engine::doctor::{self, Check, Status};

use crate::out;

/// Check this host and say how to mend what is missing
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print nothing; exit 0 only if this host's KVM can boot a stock kernel
    #[arg(long)]
    boots: bool,
}

/// Prints each check; the code is 0 when nothing that `hull run` needs is missing.
pub(crate) fn run(args: DoctorArgs) -> anyhow::Result<u8> {
    if args.boots {
        return Ok(u8::from(
            doctor::kvm()
                .iter()
                .any(|check| check.status != Status::Good),
        ));
    }
    let mut code = 0;
    for Check {
        name,
        status,
        detail,
        fix,
    } in doctor::all()
    {
        let mark = match status {
            Status::Good => "ok",
            Status::Limited => "limited",
            Status::Missing => "missing",
        };
        if status == Status::Missing {
            code = 1;
        }
        out(&format!("{mark:<8} {name}: {detail}\n"))?;
        if let (Some(fix), true) = (fix, status != Status::Good) {
            out(&format!("         {fix}\n"))?;
        }
    }
    Ok(code)
}
