//! Which system calls hull's host processes may make, as seccomp programs that were compiled when hull was built.
//!
//! `src/table.rs` is the one list of them, for each kind of thread; `docs/jail.md` shows it as a table, which a
//! test compares. What is not in a table traps (SECCOMP_RET_TRAP): the process reports the call and ends. There is
//! no switch that widens a table at run time.

mod table {
    #![expect(
        clippy::doc_markdown,
        reason = "numbers are called as the kernel's headers call them"
    )]
    include!("table.rs");
}

pub use table::{
    BLOCK, Call, FILES, FS, KINDS, Kind, MAIN, MONITOR, NET, SAVE, SHARES, VCPU, When,
};

/// The program that was compiled for a kind of thread: an array of `struct sock_filter`.
pub fn program(kind: &Kind) -> &'static [u8] {
    match kind.name {
        "main" => include_bytes!(concat!(env!("OUT_DIR"), "/main")),
        "vcpu" => include_bytes!(concat!(env!("OUT_DIR"), "/vcpu")),
        "save" => include_bytes!(concat!(env!("OUT_DIR"), "/save")),
        "blk" => include_bytes!(concat!(env!("OUT_DIR"), "/blk")),
        "fs" => include_bytes!(concat!(env!("OUT_DIR"), "/fs")),
        "monitor" => include_bytes!(concat!(env!("OUT_DIR"), "/monitor")),
        "shares" => include_bytes!(concat!(env!("OUT_DIR"), "/shares")),
        "files" => include_bytes!(concat!(env!("OUT_DIR"), "/files")),
        "net" => include_bytes!(concat!(env!("OUT_DIR"), "/net")),
        other => unreachable!("{other} is not among the kinds of the table"),
    }
}

/// The calls of a kind by name, sorted, without those of development builds.
pub fn names(kind: &Kind) -> Vec<&'static str> {
    let calls = kind.calls.iter().copied().flatten();
    let mut names: Vec<_> = calls
        .map(|call| call.name.strip_prefix("SYS_").unwrap_or(call.name))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
