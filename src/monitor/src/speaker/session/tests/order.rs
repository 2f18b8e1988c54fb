//! Any order of wake-ups: whatever comes first, each request is answered once and nothing is told that is not recorded.

use proptest::prelude::*;

use super::*;

/// Something that happens to a session.
#[derive(Debug, Clone)]
enum Wake {
    Hello,
    Start,
    Stop,
    Kill,
    Wait(bool),
    Exec,
    Attach,
    Files,
    Pause(bool),
    ClientGone,
    AgentReplies,
    AgentFails,
    Exits,
    OutputsEnd,
    ExecExits,
    WardenRecords(bool),
    Time(u64),
    MachineEnds,
    Quit(bool),
}

fn wake() -> impl Strategy<Value = Wake> {
    prop_oneof![
        3 => Just(Wake::Hello),
        3 => Just(Wake::Start),
        2 => Just(Wake::Stop),
        1 => Just(Wake::Kill),
        2 => any::<bool>().prop_map(Wake::Wait),
        2 => Just(Wake::Exec),
        1 => Just(Wake::Attach),
        1 => Just(Wake::Files),
        1 => any::<bool>().prop_map(Wake::Pause),
        1 => Just(Wake::ClientGone),
        8 => Just(Wake::AgentReplies),
        1 => Just(Wake::AgentFails),
        3 => Just(Wake::Exits),
        3 => Just(Wake::OutputsEnd),
        2 => Just(Wake::ExecExits),
        8 => any::<bool>().prop_map(Wake::WardenRecords),
        2 => (0..20_000u64).prop_map(Wake::Time),
        1 => Just(Wake::MachineEnds),
        1 => any::<bool>().prop_map(Wake::Quit),
    ]
}

/// Drives a world and checks what must hold at every moment.
struct Driver {
    world: World,
    client: ClientId,
    seq: u64,
    /// Requests of the client that is there.
    asked: Vec<u64>,
    execs: u32,
    is_hello: bool,
    is_broken: bool,
}

impl Driver {
    fn ask(&mut self, request: Request) {
        self.seq += 1;
        self.asked.push(self.seq);
        self.world.ask(self.client, self.seq, request);
    }

    fn step(&mut self, wake: Wake) {
        match wake {
            Wake::Hello if !self.is_hello && !self.is_broken => {
                self.is_hello = true;
                self.world.session.agent_hello();
                self.world.act();
            }
            Wake::Hello => {}
            Wake::Start => self.ask(start(ID)),
            Wake::Stop => self.ask(stop(ID)),
            Wake::Kill => self.ask(kill(ID, 9)),
            Wake::Wait(next) => {
                let until = match next {
                    true => WaitUntil::NextExit,
                    false => WaitUntil::NotRunning,
                };
                self.ask(wait(ProcessId::first(ID), until));
            }
            Wake::Exec => {
                self.execs += 1;
                self.seq += 1;
                self.asked.push(self.seq);
                let name = format!("e{}", self.execs);
                self.world.exec(self.client, self.seq, &name);
            }
            Wake::Attach => self.ask(Request::Attach {
                process: ProcessId::first(ID),
                streams: [true; 3],
            }),
            Wake::Files => self.ask(Request::Changes {
                container: ID.into(),
            }),
            Wake::Pause(true) => self.ask(Request::Pause {
                container: ID.into(),
            }),
            Wake::Pause(false) => self.ask(Request::Resume {
                container: ID.into(),
            }),
            Wake::ClientGone => {
                self.world.session.client_gone(self.client);
                self.world.act();
                self.client += 1;
                self.asked.clear();
                self.world.client(self.client);
            }
            Wake::AgentReplies if !self.world.agent.is_empty() && !self.is_broken => {
                self.world.agent_replies();
            }
            Wake::AgentFails if !self.world.agent.is_empty() && !self.is_broken => {
                let (seq, _) = self.world.agent.remove(0);
                let result = Err(Failure::new(FailureKind::Other, "it failed"));
                self.world
                    .session
                    .agent_said(FromAgent::Reply { seq, result });
                self.world.act();
            }
            Wake::AgentReplies | Wake::AgentFails => {}
            Wake::Exits => self.world.exits(ProcessId::first(ID), ExitStatus::Code(1)),
            Wake::ExecExits => {
                let process = ProcessId::exec(ID, format!("e{}", self.execs));
                self.world.exits(process.clone(), ExitStatus::Code(2));
                self.world.outputs_end(&process);
            }
            Wake::OutputsEnd => self.world.outputs_end(&ProcessId::first(ID)),
            Wake::WardenRecords(again) if !self.world.warden.is_empty() => {
                self.world.warden_records(match again {
                    true => Next::Restart { after_ms: 500 },
                    false => Next::Stay,
                });
            }
            Wake::WardenRecords(_) => {}
            Wake::Time(ms) => self.world.wait(Duration::from_millis(ms)),
            Wake::MachineEnds => self.break_machine(),
            Wake::Quit(by_user) => {
                self.world.session.quit(by_user);
                self.world.act();
            }
        }
    }

    fn break_machine(&mut self) {
        self.is_broken = true;
        self.world.agent.clear();
        self.world.session.machine_ended(Broken {
            message: "it broke".into(),
            console: Vec::new(),
        });
        self.world.act();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered_once_and_the_session_comes_to_an_end(
        wakes in prop::collection::vec(wake(), 0..60),
    ) {
        let mut driver = Driver {
            world: World::single(RestartPolicy::Always),
            client: 1,
            seq: 0,
            asked: Vec::new(),
            execs: 0,
            is_hello: false,
            is_broken: false,
        };
        driver.world.client(1);
        for wake in wakes {
            driver.step(wake);
            let world = &driver.world;
            let mut answered: Vec<&String> = world.log.iter().filter(|l| l.starts_with("answer")).collect();
            let all = answered.len();
            answered.sort();
            answered.dedup();
            prop_assert_eq!(all, answered.len(), "a request was answered twice: {:?}", world.log);
        }
        // Whatever happened: once the machine is gone and the warden has written, everything that was asked is answered, but
        // for waits for an end that will not come.
        driver.break_machine();
        driver.world.settle();
        driver.world.wait(Duration::from_secs(60));
        driver.world.settle();
        let client = driver.client;
        let ended = driver.world.saw("end");
        for seq in &driver.asked {
            let answer = format!("answer {client}/{seq}");
            let waits = driver.world.session.containers.values().any(|container| {
                container.first.waiters.iter().any(|(ask, _)| ask.seq == *seq)
            });
            prop_assert!(
                driver.world.saw(&answer) || waits || ended,
                "{answer} is missing: {:?}", driver.world.log
            );
        }
        driver.world.session.client_gone(client);
        driver.world.act();
        prop_assert!(driver.world.saw("end"), "it does not end: {:?}", driver.world.log);
    }

    #[test]
    fn an_end_is_told_after_it_was_recorded_in_any_order_of_its_parts(
        order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
    ) {
        let mut w = World::running(RestartPolicy::No);
        w.ask(1, 9, wait(ProcessId::first(ID), WaitUntil::NextExit));
        let ports: Vec<u32> = w.open.iter()
            .filter(|(_, role)| matches!(role, Role::Output { .. }))
            .map(|(port, _)| *port)
            .collect();
        let process = ProcessId::first(ID);
        for part in order {
            match part {
                0 => w.exits(process.clone(), ExitStatus::Code(0)),
                1 => { w.session.stream_ended(&process, ports[0]); w.act(); }
                2 => { w.session.stream_ended(&process, ports[1]); w.act(); }
                _ => { w.ask(1, 10, kill(ID, 9)); }
            }
        }
        prop_assert!(!w.saw("answer 1/9"));
        w.settle();
        prop_assert!(w.saw("answer 1/9") && w.saw("answer 1/10"));
    }
}

#[test]
fn a_container_that_is_removed_at_its_end_leaves_its_pod_when_that_is_recorded() {
    for starts in [true, false] {
        let mut w = World::of(setting(None));
        w.session.agent_hello();
        w.client(1);
        w.ask(1, 1, start("stays"));
        w.ask(1, 2, start(REMOVED));
        if starts {
            w.settle();
            w.exits(ProcessId::first(REMOVED), ExitStatus::Code(0));
            w.outputs_end(&ProcessId::first(REMOVED));
            assert!(!w.saw("agent Delete"), "before its end is recorded");
        } else {
            while !matches!(w.agent.first(), Some((_, ToAgent::Start { container })) if container == REMOVED)
            {
                match w.agent.is_empty() {
                    true => w.warden_records(Next::Stay),
                    false => w.agent_replies(),
                }
            }
            let (seq, _) = w.agent.remove(0);
            let result = Err(Failure::new(FailureKind::NotFound, "no such program"));
            w.session.agent_said(FromAgent::Reply { seq, result });
            w.act();
        }
        w.settle();
        let order: Vec<&String> = w.log.iter().rev().take(2).rev().collect();
        assert_eq!(order, ["agent Delete", "warden Forget"]);
        w.ask(1, 3, start("stays"));
        w.settle();
        assert!(!w.saw("end"));
        assert_eq!(w.count("agent Delete"), 1);
    }
}
