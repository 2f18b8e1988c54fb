//! Compiles the tables of `src/table.rs` to BPF, one file for each kind: nothing is left to do at run time. The build
//! script runs on what it builds for, x86-64.

use std::collections::BTreeMap;
use std::path::Path;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

#[expect(unreachable_pub, reason = "the crate exports the same text")]
mod table {
    include!("src/table.rs");
}
use table::{Call, KINDS, Kind, PROT_EXEC, When};

fn main() {
    println!("cargo::rerun-if-changed=src/table.rs");
    let out = std::env::var_os("OUT_DIR").expect("cargo says where to write");
    let installed = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl")
        && std::env::var_os("CARGO_CFG_DEBUG_ASSERTIONS").is_none();
    for kind in KINDS {
        let path = Path::new(&out).join(kind.name);
        std::fs::write(path, compile(kind, installed)).expect("OUT_DIR can be written");
    }
}

/// The program as bytes: an array of `struct sock_filter`.
fn compile(kind: &Kind, installed: bool) -> Vec<u8> {
    let besides = if installed { &[] } else { kind.development };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in kind.calls.iter().copied().flatten().chain(besides) {
        let of = rules.entry(call.number).or_default();
        of.extend(alternatives(call));
    }
    // A call of another architecture's ABI kills the process: seccompiler's own prologue.
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Trap,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
    .expect("the table has no rule that contradicts itself");
    let program: BpfProgram = filter.try_into().expect("the table fits a program");
    let mut bytes = Vec::new();
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes
}

/// The rules of which one has to hold; none at all allow the call with any arguments.
fn alternatives(call: &Call) -> Vec<SeccompRule> {
    match call.when {
        When::Always => Vec::new(),
        When::OneOf(argument, values) => values
            .iter()
            .map(|&value| rule(&[(argument, SeccompCmpOp::Eq, value)]))
            .collect(),
        When::EachOf(arguments) => {
            let mut combinations: Vec<Vec<_>> = vec![Vec::new()];
            for &(argument, values) in arguments {
                let mut extended = Vec::new();
                for before in combinations {
                    for &value in values {
                        let condition = (argument, SeccompCmpOp::Eq, value);
                        extended.push([before.clone(), vec![condition]].concat());
                    }
                }
                combinations = extended;
            }
            combinations.iter().map(|all| rule(all)).collect()
        }
        When::Without(argument, bits) => {
            vec![rule(&[(argument, SeccompCmpOp::MaskedEq(bits), 0)])]
        }
        When::PlainMemory(flags) => flags
            .iter()
            .map(|&flags| {
                rule(&[
                    (2, SeccompCmpOp::MaskedEq(PROT_EXEC), 0),
                    (3, SeccompCmpOp::Eq, flags),
                ])
            })
            .collect(),
    }
}

fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> SeccompRule {
    let conditions = conditions.iter().map(|(argument, operation, value)| {
        SeccompCondition::new(
            *argument,
            SeccompCmpArgLen::Dword,
            operation.clone(),
            *value,
        )
        .expect("a call has six arguments")
    });
    SeccompRule::new(conditions.collect()).expect("a rule has a condition")
}
