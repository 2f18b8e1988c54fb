//! The `hull` program. All of it is in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
