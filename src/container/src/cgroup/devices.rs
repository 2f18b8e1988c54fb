//! The document's device rules as a BPF program (BPF_PROG_TYPE_CGROUP_DEVICE).
//!
//! Every kind of access (read, write, mknod) is decided by the last rule that speaks of it: the program walks the
//! rules backwards, crosses off what an allowing rule grants, and ends at a denying rule that hits what is left.

use sys::bpf::{Instruction, instruction};

use crate::error::{Attempt, Error, Refusal, Step};
use crate::spec::DeviceRule;

/// More rules than any document has; each is at most nine instructions, of which the kernel takes 4096 at least.
const MAX_RULES: usize = 400;

// linux/bpf.h: struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }, access_type is access << 16 | type.
const TYPE_BLOCK: i32 = 1;
const TYPE_CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ANY_ACCESS: i32 = MKNOD | READ | WRITE;

/// A rule, with `None` for "any".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

const fn allow(kind: i32, major: Option<i32>, minor: Option<i32>, access: i32) -> Rule {
    Rule {
        allow: true,
        kind: Some(kind),
        major,
        minor,
        access,
    }
}

/// What every container may use, whatever the document says, as with runc: its default devices and terminals; and
/// nodes of any device may be made, if not opened.
const ALWAYS: [Rule; 10] = [
    allow(TYPE_CHARACTER, None, None, MKNOD),
    allow(TYPE_BLOCK, None, None, MKNOD),
    allow(TYPE_CHARACTER, Some(1), Some(3), ANY_ACCESS),
    allow(TYPE_CHARACTER, Some(1), Some(5), ANY_ACCESS),
    allow(TYPE_CHARACTER, Some(1), Some(7), ANY_ACCESS),
    allow(TYPE_CHARACTER, Some(1), Some(8), ANY_ACCESS),
    allow(TYPE_CHARACTER, Some(1), Some(9), ANY_ACCESS),
    allow(TYPE_CHARACTER, Some(5), Some(0), ANY_ACCESS),
    allow(TYPE_CHARACTER, Some(5), Some(2), ANY_ACCESS),
    allow(TYPE_CHARACTER, Some(136), None, ANY_ACCESS),
];

/// The program for a document's rules, which are followed by those that always hold. What no rule speaks of is denied.
pub(super) fn program(document: &[DeviceRule]) -> Result<Vec<Instruction>, Error> {
    if document.len() > MAX_RULES {
        return Err(Refusal::TooLarge).at(Step::DeviceFilter, "linux.resources.devices");
    }
    let mut rules = document.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    rules.extend(ALWAYS);
    Ok(assemble(&rules))
}

fn parse(rule: &DeviceRule) -> Result<Rule, Error> {
    let refuse = |refusal| Err(refusal).at(Step::DeviceFilter, format_args!("{rule:?}"));
    let kind = match rule.kind {
        None | Some('a') => None,
        Some('b') => Some(TYPE_BLOCK),
        Some('c' | 'u') => Some(TYPE_CHARACTER),
        Some(_) => return refuse(Refusal::UnknownName),
    };
    let number = |number: Option<i64>| match number {
        Some(number) if number >= 0 => i32::try_from(number).map(Some),
        _ => Ok(None),
    };
    let (Ok(major), Ok(minor)) = (number(rule.major), number(rule.minor)) else {
        return refuse(Refusal::OutOfRange);
    };
    let mut access = 0;
    for letter in rule
        .access
        .as_deref()
        .filter(|access| !access.is_empty())
        .unwrap_or("rwm")
        .chars()
    {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return refuse(Refusal::UnknownName),
        };
    }
    Ok(Rule {
        allow: rule.allow,
        kind,
        major,
        minor,
        access,
    })
}

// Registers, and the few instructions used.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const REMAINING: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

const LOAD_U32: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const SET: u8 = 0xb4;
const JUMP_IF_NOT: u8 = 0x56;
const JUMP_IF: u8 = 0x16;
const EXIT: u8 = 0x95;

fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_U32, TYPE, CONTEXT, 0, 0),
        instruction(AND, TYPE, 0, 0, 0xffff),
        instruction(LOAD_U32, REMAINING, CONTEXT, 0, 0),
        instruction(SHIFT_RIGHT, REMAINING, 0, 0, 16),
        instruction(LOAD_U32, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_U32, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
    }
    program.extend([
        instruction(SET, RESULT, 0, 0, 0),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    program
}

/// One rule: falls through to the next when it does not decide.
fn block(rule: &Rule) -> Vec<Instruction> {
    let conditions = [(TYPE, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)]
        .into_iter()
        .filter_map(|(r, v)| Some((r, v?)));
    let body = if rule.allow {
        vec![
            instruction(AND, REMAINING, 0, 0, ANY_ACCESS & !rule.access),
            instruction(JUMP_IF_NOT, REMAINING, 0, 2, 0),
            instruction(SET, RESULT, 0, 0, 1),
            instruction(EXIT, 0, 0, 0, 0),
        ]
    } else {
        vec![
            instruction(MOVE, SCRATCH, REMAINING, 0, 0),
            instruction(AND, SCRATCH, 0, 0, rule.access),
            instruction(JUMP_IF, SCRATCH, 0, 2, 0),
            instruction(SET, RESULT, 0, 0, 0),
            instruction(EXIT, 0, 0, 0, 0),
        ]
    };
    let conditions: Vec<_> = conditions.collect();
    let mut block: Vec<Instruction> = conditions
        .iter()
        .enumerate()
        .map(|(at, &(register, value))| {
            let over = conditions.len() - at - 1 + body.len();
            instruction(JUMP_IF_NOT, register, 0, over as i16, value)
        })
        .collect();
    block.extend(body);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on (access << 16 | type, major, minor).
    fn run(program: &[Instruction], context: [u32; 3]) -> u64 {
        let mut registers = [0u32; 11];
        let mut at = 0;
        loop {
            let i = program[at];
            let (opcode, dst, src) = (i as u8, (i >> 8 & 15) as usize, (i >> 12 & 15) as usize);
            let (offset, immediate) = ((i >> 16) as i16, (i >> 32) as u32);
            at += 1;
            match opcode {
                LOAD_U32 => registers[dst] = context[offset as usize / 4],
                AND => registers[dst] &= immediate,
                SHIFT_RIGHT => registers[dst] >>= immediate,
                MOVE => registers[dst] = registers[src],
                SET => registers[dst] = immediate,
                JUMP_IF_NOT if registers[dst] != immediate => at += offset as usize,
                JUMP_IF if registers[dst] == immediate => at += offset as usize,
                JUMP_IF_NOT | JUMP_IF => {}
                EXIT => return registers[0].into(),
                opcode => panic!("{opcode:#x}"),
            }
        }
    }

    fn allows(document: &str, kind: char, major: u32, minor: u32, access: i32) -> bool {
        let rules: Vec<DeviceRule> = serde_json::from_str(document).unwrap();
        let kind = if kind == 'b' {
            TYPE_BLOCK
        } else {
            TYPE_CHARACTER
        };
        run(
            &program(&rules).unwrap(),
            [(access << 16 | kind) as u32, major, minor],
        ) == 1
    }

    #[test]
    fn dockers_rules_allow_the_default_devices_and_deny_disks() {
        let docker = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":200,"access":"rw"}]"#;
        assert!(allows(docker, 'c', 1, 3, READ | WRITE));
        assert!(allows(docker, 'c', 136, 7, READ | WRITE));
        assert!(allows(docker, 'b', 8, 0, MKNOD));
        assert!(!allows(docker, 'b', 8, 0, READ));
        assert!(!allows(docker, 'b', 8, 0, READ | MKNOD));
        assert!(allows(docker, 'c', 10, 200, READ | WRITE));
        assert!(!allows(docker, 'c', 10, 201, READ));
    }

    #[test]
    fn each_kind_of_access_is_decided_by_the_last_rule_about_it() {
        let rules = r#"[{"allow":true,"type":"b","major":8,"access":"r"},{"allow":true,"type":"b","major":8,"access":"w"},
                        {"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#;
        assert!(allows(rules, 'b', 8, 0, READ | WRITE));
        assert!(allows(rules, 'b', 8, 1, READ));
        assert!(!allows(rules, 'b', 8, 1, READ | WRITE));
        assert!(allows(r#"[{"allow":true}]"#, 'b', 9, 9, ANY_ACCESS));
        assert!(!allows(
            r#"[{"allow":true,"type":"c","major":5,"minor":-1}]"#,
            'c',
            6,
            1,
            READ
        ));
    }

    #[test]
    fn nonsense_is_refused() {
        for rule in [
            r#"[{"allow":true,"type":"x"}]"#,
            r#"[{"allow":true,"access":"z"}]"#,
            r#"[{"allow":true,"major":99999999999}]"#,
        ] {
            let rules: Vec<DeviceRule> = serde_json::from_str(rule).unwrap();
            assert!(program(&rules).is_err(), "{rule}");
        }
    }
}
