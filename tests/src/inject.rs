//! System calls that fail on purpose: a command under ptrace(2), in which the nth call of a kind, in one of its
//! programs, fails or moves fewer bytes than it was asked to.
//!
//! Unlike strace's injection it counts over all processes of one program, shortens reads and writes, and works behind a
//! seccomp filter: a call that is to fail is made with an argument with which it has no effect, and keeps its number.
#![expect(
    unsafe_code,
    reason = "ptrace(2) and wait4(2) with __WNOTHREAD have no safe form"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libc::{c_int, pid_t, user_regs_struct};

mod tracee;

use tracee::{
    can_be_short, disarm, family, is_eventfd, place, program, registers, resume, set_registers,
    stands, wait_for,
};

/// How the chosen call is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It fails with this errno and does nothing.
    Fails(i32),
    /// A read or write of a file or pipe moves at most this many bytes, this time and the next [`SHORT_FOR`].
    Short(u64),
}

/// Which call is disturbed.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The program, by the name of its file.
    pub program: String,
    /// Numbers of system calls: one kind, counted together.
    pub calls: Vec<i64>,
    /// Which of them, from 1.
    pub nth: u64,
    /// How.
    pub effect: Effect,
}

/// The result of a command.
#[derive(Debug, Default)]
pub struct Traced {
    /// The command's wait status.
    pub status: c_int,
    /// Calls of each program, by number.
    pub calls: BTreeMap<String, BTreeMap<i64, u64>>,
    /// The fault was reached.
    pub fired: bool,
    /// Programs that ended by a signal that they caused or with Rust's exit code for a panic, and how.
    pub crashed: Vec<String>,
    /// Where each process stood when the command had to be killed.
    pub hung: Option<String>,
}

impl Traced {
    /// The exit code, or 128 + the signal's number.
    pub fn code(&self) -> i32 {
        match libc::WIFEXITED(self.status) {
            true => libc::WEXITSTATUS(self.status),
            false => 128 + libc::WTERMSIG(self.status),
        }
    }
}

/// Calls that are shortened, one after the other.
const SHORT_FOR: u64 = 400;
/// A process that gets the same fatal signal this often cannot die of it: PID 1 of a namespace, while it is traced.
const IMMORTAL_AFTER: u32 = 5;
/// Descriptors 0 to 2 belong to the test, which reads the results there; they are not disturbed.
const FIRST_DESCRIPTOR: u64 = 3;
/// Signals that a process causes itself.
const FATAL: [c_int; 5] = [
    libc::SIGABRT,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
];
/// Rust's exit code after a panic.
const PANICKED: c_int = 101;

/// Runs a command to its end, with all that it starts, and disturbs it once. Everything is killed after `limit`.
pub fn run(command: &mut Command, fault: Option<&Fault>, limit: Duration) -> Result<Traced> {
    // SAFETY: the closure makes one system call with constant arguments.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let child = command.spawn().context("cannot run the command")?;
    let root = child.id() as pid_t;
    // This function waits for the child from here on; the standard library must not.
    std::mem::forget(child);
    let alive: Arc<Mutex<BTreeSet<pid_t>>> = Arc::new(Mutex::new(BTreeSet::from([root])));
    let watch = Watch::start(alive.clone(), limit);
    let mut tracer = Tracer {
        fault,
        threads: BTreeMap::new(),
        reached: 0,
        alive,
        traced: Traced::default(),
    };
    tracer.trace(root)?;
    let mut traced = tracer.traced;
    traced.hung = watch.end();
    Ok(traced)
}

/// Kills all tracees at the limit.
struct Watch {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Option<String>>,
}

impl Watch {
    fn start(alive: Arc<Mutex<BTreeSet<pid_t>>>, limit: Duration) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            while start.elapsed() < limit {
                if seen.load(Ordering::Relaxed) {
                    return None;
                }
                std::thread::park_timeout(Duration::from_millis(200));
            }
            let pids = alive.lock().expect("no holder panics").clone();
            let stood = pids.iter().map(|pid| stands(*pid)).collect::<String>();
            for pid in pids {
                // SAFETY: plain numbers; they are tracees that have not been waited for, so none is reused.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            Some(stood)
        });
        Watch { over, thread }
    }

    fn end(self) -> Option<String> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().expect("the watch does not panic")
    }
}

/// A thread that is traced.
#[derive(Debug)]
struct Thread {
    program: String,
    /// Set once the loader and Rust's start-up are done, which end with a signal stack: calls are counted from here.
    in_main: bool,
    /// Between the entry and the exit of a call.
    inside: bool,
    /// Registers to restore when the call returns: its arguments, and the result if it is to fail.
    disturbed: Option<(user_regs_struct, Option<i32>)>,
    /// Its first stop has been seen.
    begun: bool,
    /// Fatal signals that it was given.
    fatal: u32,
}

struct Tracer<'a> {
    fault: Option<&'a Fault>,
    threads: BTreeMap<pid_t, Thread>,
    reached: u64,
    alive: Arc<Mutex<BTreeSet<pid_t>>>,
    traced: Traced,
}

impl Tracer<'_> {
    fn trace(&mut self, root: pid_t) -> Result<()> {
        let status = wait_for(root)?.1;
        ensure!(
            libc::WIFSTOPPED(status),
            "the command ended before it began"
        );
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        // SAFETY: a stopped tracee of this thread; the options are a number.
        unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, root, 0, options) };
        let first = Thread {
            begun: true,
            ..Thread::new(program(root))
        };
        self.threads.insert(root, first);
        resume(root, 0);
        loop {
            let (pid, status) = match wait_for(-1) {
                Ok(event) => event,
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if libc::WIFSTOPPED(status) {
                self.stopped(pid, status);
            } else {
                self.ended(pid, status, root);
            }
        }
    }

    fn ended(&mut self, pid: pid_t, status: c_int, root: pid_t) {
        let thread = self.threads.remove(&pid);
        self.alive.lock().expect("no holder panics").remove(&pid);
        if pid == root {
            self.traced.status = status;
        }
        let program = thread.map_or_else(String::new, |thread| thread.program);
        if libc::WIFSIGNALED(status) && FATAL.contains(&libc::WTERMSIG(status)) {
            let signal = libc::WTERMSIG(status);
            self.traced
                .crashed
                .push(format!("{program}: signal {signal}"));
        } else if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == PANICKED {
            self.traced.crashed.push(format!("{program}: panic"));
        }
    }

    fn stopped(&mut self, pid: pid_t, status: c_int) {
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        if !self.threads.contains_key(&pid) {
            // The event of its parent, which would identify it, may come later: /proc tells now.
            let mut thread = Thread::new(program(pid));
            if let Some(relative) = family(pid).iter().find_map(|pid| self.threads.get(pid)) {
                thread.program = relative.program.clone();
                thread.in_main = relative.in_main;
            }
            self.threads.insert(pid, thread);
            self.alive.lock().expect("no holder panics").insert(pid);
        }
        let thread = self.threads.get_mut(&pid).expect("it was just put there");
        let deliver = match (signal, event) {
            (libc::SIGTRAP, libc::PTRACE_EVENT_EXEC) => {
                thread.program = program(pid);
                thread.in_main = false;
                // The exit of execve itself comes next.
                thread.inside = true;
                0
            }
            (libc::SIGTRAP, 1..) => 0,
            (libc::SIGSTOP, _) if !thread.begun => {
                thread.begun = true;
                0
            }
            (signal, _) if signal == libc::SIGTRAP | 0x80 => {
                self.call(pid);
                0
            }
            (signal, _) if FATAL.contains(&signal) && thread.fatal >= IMMORTAL_AFTER => {
                let program = &thread.program;
                self.traced
                    .crashed
                    .push(format!("{program}: signal {signal}"));
                // SAFETY: numbers only; the tracee has not been waited for.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                0
            }
            (signal, _) => {
                if FATAL.contains(&signal) {
                    thread.fatal += 1;
                    let place = place(pid);
                    self.traced
                        .crashed
                        .push(format!("{}: {signal} at {place}", thread.program));
                }
                signal
            }
        };
        resume(pid, deliver);
    }

    /// The entry of a call, or its exit.
    fn call(&mut self, pid: pid_t) {
        let Some(mut registers) = registers(pid) else {
            return;
        };
        let thread = self.threads.get_mut(&pid).expect("only known threads stop");
        thread.inside = !thread.inside;
        if !thread.inside {
            if let Some((before, errno)) = thread.disturbed.take() {
                // Programs rely on a call leaving its arguments unchanged.
                let result = errno.map_or(registers.rax, |errno| (-i64::from(errno)) as u64);
                registers = user_regs_struct {
                    rdi: before.rdi,
                    rsi: before.rsi,
                    rdx: before.rdx,
                    rax: result,
                    ..registers
                };
                set_registers(pid, &registers);
            }
            return;
        }
        let number = registers.orig_rax as i64;
        if !thread.in_main || excluded(pid, number, &registers) {
            thread.in_main |= number == libc::SYS_sigaltstack && registers.rdi != 0;
            return;
        }
        let of_program = self.traced.calls.entry(thread.program.clone()).or_default();
        *of_program.entry(number).or_default() += 1;
        let Some(fault) = self.fault else { return };
        if thread.program != fault.program || !fault.calls.contains(&number) {
            return;
        }
        self.reached += 1;
        match fault.effect {
            Effect::Fails(errno) if self.reached == fault.nth => {
                self.traced.fired = true;
                // brk returns no errno but the break, which has not changed.
                let errno = Some(errno).filter(|_| number != libc::SYS_brk);
                thread.disturbed = Some((registers, errno));
                disarm(number, &mut registers);
                set_registers(pid, &registers);
            }
            Effect::Short(most)
                if (fault.nth..fault.nth + SHORT_FOR).contains(&self.reached)
                    && can_be_short(pid, registers.rdi) =>
            {
                self.traced.fired |= registers.rdx > most;
                thread.disturbed = Some((registers, None));
                registers.rdx = registers.rdx.min(most);
                set_registers(pid, &registers);
            }
            _ => {}
        }
    }
}

impl Thread {
    fn new(program: String) -> Thread {
        Thread {
            program,
            in_main: false,
            inside: false,
            disturbed: None,
            begun: false,
            fatal: 0,
        }
    }
}

/// Calls of the tests' own descriptors, and those that no kernel lets fail.
fn excluded(pid: pid_t, number: i64, registers: &user_regs_struct) -> bool {
    let of_descriptor = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_fcntl,
        libc::SYS_fstat,
    ];
    let own = of_descriptor.contains(&number) && registers.rdi < FIRST_DESCRIPTOR;
    own || number == libc::SYS_write && is_eventfd(pid, registers.rdi)
}
