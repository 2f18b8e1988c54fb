//! Hostile guests on this machine's /dev/kvm, against a hull-vmm as it is installed: whatever they do, it ends with a word to
//! the monitor or runs on until it is stopped, it never grows, and the VM beside it never notices. `docs/attacks.md` lists
//! them.

use std::fs::File;
use std::io::sink;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::vmm::{Descriptor, DiskConfig, DiskExtent, End, NetConfig, ToVmm, Wire};

#[path = "fixture/attack.rs"]
mod attack;
#[path = "fixture/mod.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod fixture;
#[path = "fixture/payload.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod payload;
#[path = "fixture/resident.rs"]
mod resident;

use attack::{Attack, both};
use fixture::{Outcome, Plan, Vm, send};
use payload::Code;

/// block, net, vsock, rng, fs, console.
const DEVICES: u32 = 6;
/// What hull-vmm itself may hold: twice what it does when nothing happens (`hull_vmm_itself_stays_small`). None of these
/// guests is offered a stream; the buffers of streams are bounded by 128 MiB.
const MAX_RESIDENT: u64 = 12 << 20;
/// A guest that does not end by itself is stopped.
const PATIENCE: Duration = Duration::from_secs(20);
/// A port without a device, at which the second vCPU shows that it runs.
const SECOND_RUNS: u16 = 0x1234;
const SEEDS: [u64; 3] = [1, 2, 3];

fn start(code: &Code, change: impl FnOnce(&mut Plan)) -> Vm {
    let mut plan = Plan::new(code.kernel().unwrap()).unwrap();
    change(&mut plan);
    plan.start(Path::new(env!("CARGO_BIN_EXE_hull-vmm")), sink())
        .unwrap()
}

/// A VM beside the hostile one. It is asked for a word now and then.
struct Neighbour(Vm);

impl Neighbour {
    fn new() -> Self {
        Self(start(&Code::new().raw(&[0xeb, 0xfe]), |_| ())) // jmp $
    }

    fn answers(&self) {
        let asked = Instant::now();
        self.0.report().expect("the neighbour lives");
        // Two processors, other tests: but no hostile guest holds it up.
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "the neighbour is slow"
        );
    }

    fn stop(self) {
        self.0.send(&ToVmm::Stop, &[]).unwrap();
        let outcome = self.0.wait().unwrap();
        assert_eq!(outcome.end, Ok(End::Stopped));
        assert!(outcome.status.success());
    }
}

/// Has the network card lead to a new wire, or to none.
fn replug(socket: &OwnedFd, is_plugged: bool) -> std::io::Result<()> {
    let (tap, _wire) = UnixDatagram::pair()?;
    tap.set_nonblocking(true)?;
    let wire = is_plugged.then_some((Descriptor(0), Wire::Plain));
    let given = wire.map(|_| OwnedFd::from(tap));
    send(socket, &ToVmm::Plug { slot: 0, wire }, given.as_slice())
}

/// Runs a hostile guest with every device, watching what hull-vmm holds and whether a neighbour answers.
fn survives(what: &str, code: &Code, vcpus: u8) -> Outcome {
    let neighbour = Neighbour::new();
    let (tap, _wire) = UnixDatagram::pair().unwrap();
    tap.set_nonblocking(true).unwrap();
    let vm = start(code, |plan| {
        plan.config.vcpus = vcpus;
        plan.config.rng = true;
        plan.with_vsock().with_fs(false);
        let file = plan.pass(disk());
        plan.config.disks.push(DiskConfig {
            serial: "victim".into(),
            read_only: false,
            extents: vec![DiskExtent {
                file,
                len_bytes: 1 << 20,
            }],
            align_bytes: 4096,
            min_len_bytes: 0,
        });
        let tap = plan.pass(tap);
        plan.config.nets.push(NetConfig {
            descriptor: Some(tap),
            wire: Wire::Plain,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
        });
    });
    let (id, socket) = (vm.id(), vm.socket().unwrap());
    let asking = std::thread::spawn(move || {
        let begun = Instant::now();
        let mut is_plugged = true;
        while begun.elapsed() < PATIENCE && send(&socket, &ToVmm::Report, &[]).is_ok() {
            // The network card's wire comes and goes meanwhile. The VM may be gone by now.
            is_plugged = !is_plugged;
            let _ = replug(&socket, is_plugged);
            std::thread::sleep(Duration::from_millis(40));
        }
        // Gone already, as a rule.
        let _ = send(&socket, &ToVmm::Stop, &[]);
    });
    let resident = std::cell::Cell::new((0, 0));
    let outcome = vm
        .watch(|report| {
            let (count, most) = resident.get();
            let now = resident::outside(id, &report.guest_memory).unwrap_or(0);
            resident.set((count + 1, most.max(now)));
            neighbour.answers();
        })
        .unwrap_or_else(|error| panic!("{what}: hull-vmm said nothing at its end: {error}"));
    let (reports, most) = resident.get();
    println!(
        "{what}: {:?}, {}, at most {most} bytes resident in {reports} reports, {:?}",
        outcome.end, outcome.status, outcome.report.user_exits
    );
    assert!(outcome.end.is_ok(), "{what}: {:?}", outcome.end);
    assert!(outcome.status.success(), "{what}: {}", outcome.status);
    assert!(most < MAX_RESIDENT, "{what}: {most} bytes are resident");
    asking.join().unwrap();
    neighbour.answers();
    neighbour.stop();
    outcome
}

fn disk() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    file
}

/// Accesses that reached hull-vmm.
fn accesses(outcome: &Outcome) -> u64 {
    outcome.report.user_exits.values().sum()
}

/// Registers, seed by seed: the guest reaches its end.
fn each_seed(what: &str, vcpus: u8, program: impl Fn(u64) -> Code) -> Vec<Outcome> {
    let run = |&seed| {
        let outcome = survives(&format!("{what}, seed {seed}"), &program(seed), vcpus);
        assert_eq!(outcome.end, Ok(End::Reset), "{what}, seed {seed}");
        outcome
    };
    SEEDS.iter().map(run).collect()
}

#[test]
#[ignore = "needs /dev/kvm"]
fn registers_in_any_order_width_and_place() {
    for outcome in each_seed("registers", 1, |seed| {
        let mut attack = Attack::new(seed, DEVICES, 4);
        attack.registers(3000);
        attack.end().reset()
    }) {
        assert!(accesses(&outcome) > 10_000, "{}", accesses(&outcome));
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn queues_of_garbage_on_every_device() {
    for outcome in each_seed("garbage", 1, |seed| {
        let mut attack = Attack::new(seed, DEVICES, 3);
        for round in 0..20 {
            attack.garbage_rings(round % DEVICES);
            attack.registers(20);
        }
        attack.end().reset()
    }) {
        assert!(accesses(&outcome) > 2000, "{}", accesses(&outcome));
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_storm_of_notifications() {
    each_seed("storm", 1, |seed| {
        let mut attack = Attack::new(seed, DEVICES, 10);
        for device in 0..DEVICES {
            attack.garbage_rings(device);
        }
        attack.storm(4000);
        attack.end().reset()
    });
}

#[test]
#[ignore = "needs /dev/kvm"]
fn every_port_and_every_address_where_nobody_is() {
    for seed in SEEDS {
        let mut attack = Attack::new(seed, DEVICES, 3);
        attack.ports(2000);
        attack.nowhere(1000);
        attack.strings(20);
        let outcome = survives(&format!("nowhere, seed {seed}"), &attack.end().reset(), 1);
        // A code was written among the rest, and belongs to the reset.
        assert!(
            matches!(outcome.end, Ok(End::Code { .. })),
            "{:?}",
            outcome.end
        );
        assert!(accesses(&outcome) > 5000, "{}", accesses(&outcome));
        // What was counted by port stays a small table.
        assert!(outcome.report.user_exits.len() < 100);
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_flood_of_the_serial_port_whose_reader_is_slow() {
    let mut guest = Attack::new(1, DEVICES, 300);
    guest.code = guest.code.raw(&[0x66, 0xba, 0xf8, 0x03, 0xb0, b'\n']); // mov dx, 0x3f8; mov al, '\n'
    for _ in 0..100 {
        guest.code = guest.code.raw(&[0xee]); // out dx, al
    }
    let outcome = survives("flood", &guest.end().reset(), 1);
    assert_eq!(outcome.end, Ok(End::Reset));
    assert_eq!(outcome.report.user_exits["io_out 0x3f8"], 30_000);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn an_end_with_requests_under_way() {
    type Last = fn(Code) -> Code;
    let lasts: [(&str, Last, End); 3] = [
        ("reset", Code::reset, End::Reset),
        (
            "triple fault",
            |code| code.raw(&[0x0f, 0x0b]),
            End::TripleFault,
        ),
        (
            "code",
            |code| code.eax(u32::MAX).code_from_eax().reset(),
            End::Code { code: u32::MAX },
        ),
    ];
    for (what, last, end) in lasts {
        let mut attack = Attack::new(7, DEVICES, 1);
        for device in 0..DEVICES {
            attack.garbage_rings(device);
        }
        assert_eq!(survives(what, &last(attack.end()), 1).end, Ok(end));
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn two_vcpus_that_race_on_every_device() {
    for seed in SEEDS {
        let code = both(
            |code| {
                let mut attack = Attack::after(code, seed, DEVICES, 3, true);
                for round in 0..10 {
                    attack.garbage_rings(round % DEVICES);
                    attack.registers(100);
                }
                attack.end().reset()
            },
            |code| {
                let code = code.out_eax(SECOND_RUNS);
                let mut attack = Attack::after(code, seed + 100, DEVICES, 1000, false);
                for round in 0..10 {
                    attack.registers(100);
                    attack.garbage_rings(round % DEVICES);
                }
                attack.end()
            },
        );
        let outcome = survives(&format!("race, seed {seed}"), &code, 2);
        assert_eq!(outcome.end, Ok(End::Reset));
        assert_eq!(
            outcome.report.user_exits[&format!("io_out {SECOND_RUNS:#x}")],
            1
        );
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn devices_that_write_over_the_guest_itself() {
    for seed in SEEDS {
        let mut attack = Attack::new(seed, DEVICES, 50);
        // Boot tables, page tables, the program itself.
        for page in 0..16 {
            attack.write_over(3, page);
        }
        // What remains of the guest decides how it ends.
        survives(&format!("itself, seed {seed}"), &attack.end().reset(), 1);
    }
}
