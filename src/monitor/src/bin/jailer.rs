//! Stands in for the monitor in the jail's tests: `jailer PROGRAM [no-user-namespace]`, with a control socket as
//! descriptor 3, starts PROGRAM in hull-vmm's jail, prints its process number, waits for its end and prints that.

use std::path::Path;

use monitor::jail::{self, Policy};
use protocol::vmm::CONTROL_FD;
use rustix::process::{WaitOptions, waitpid};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (program, policy) = match arguments.as_slice() {
        [program] => (program, Policy::Full),
        [program, policy] if policy == jail::POLICY_VARIABLE.1 => {
            (program, Policy::NoUserNamespace)
        }
        _ => return Err("usage: jailer PROGRAM [no-user-namespace]".into()),
    };
    let control = sys::spawn::inherited(CONTROL_FD)?;
    let jailed = match jail::spawn(Path::new(program), control, policy, None) {
        Ok(jailed) => jailed,
        Err(error) => {
            println!("refused {}", monitor::chain(&error));
            return Ok(());
        }
    };
    println!("pid {}", jailed.child.pid);
    let status = waitpid(Some(jailed.child.pid), WaitOptions::empty())?.map(|(_, status)| status);
    let words = jail::explain(&jailed.words)?.unwrap_or_default();
    println!("ended {status:?}");
    println!("words {words}");
    Ok(())
}
