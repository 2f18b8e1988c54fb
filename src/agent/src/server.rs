//! The loop: requests, ended processes, streams.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use container::set_terminal_size;
use protocol::agent::{Create, Done, ExitStatus, FromAgent, Mount, Request, Stats};
use protocol::frame;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};
use sys::signalfd::SignalFd;
use sys::sigset;

use crate::asleep::Asleep;
use crate::connection::Connection;
use crate::containers::{self, Container, Process, State, check_name};
use crate::disks::{Disks, Layers};
use crate::failure::Refusal;
use crate::pump::{Direction, Pump, Side, Turn};
use crate::roots::RootFs;
use crate::{Broken, End, Surroundings};

/// Keys in the epoll set; a pump's are 2 * its number and, for [`Side::To`], one more.
const CONTROL: u64 = 0;
const SIGNALS: u64 = 1;
/// Number of the first pump.
const FIRST_PUMP: u64 = 1;
/// Events taken at a time.
const EVENTS: usize = 32;

/// An agent at work.
pub(crate) struct Server {
    place: Surroundings,
    connection: Connection,
    epoll: OwnedFd,
    signals: SignalFd,
    containers: BTreeMap<String, Container>,
    disks: Disks,
    layers: Layers,
    pumps: BTreeMap<u64, (String, Pump)>,
    next_pump: u64,
}

impl Server {
    /// What an agent does once its machine has woken.
    pub(crate) fn new(asleep: Asleep, connection: Connection) -> io::Result<Server> {
        let Asleep {
            place,
            epoll,
            signals,
            disks,
        } = asleep;
        let watch = |fd: BorrowedFd<'_>, key| {
            let key = epoll::EventData::new_u64(key);
            epoll::add(&epoll, fd, key, epoll::EventFlags::IN)
        };
        watch(connection.as_fd(), CONTROL)?;
        watch(signals.as_fd(), SIGNALS)?;
        Ok(Server {
            layers: Layers::new(place.run_dir.join("layers")),
            place,
            connection,
            epoll,
            signals,
            containers: BTreeMap::new(),
            disks,
            pumps: BTreeMap::new(),
            next_pump: FIRST_PUMP,
        })
    }

    /// Serves requests until the end, and leaves no process and no mount.
    pub(crate) fn serve(mut self) -> Result<End, Broken> {
        let end = self.run();
        self.stop();
        end
    }

    fn run(&mut self) -> Result<End, Broken> {
        // What has come behind the request that woke the machine is in the connection already.
        match self.requests() {
            Ok(None) => self.watch_control()?,
            Ok(Some(end)) => return Ok(end),
            Err(error) => return Ok(End::ControlLost(error)),
        }
        loop {
            let mut events = Vec::with_capacity(EVENTS);
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Err(Errno::INTR) => continue,
                result => result.map_err(io::Error::from)?,
            };
            for event in events {
                let result = match event.data.u64() {
                    CONTROL => self.requests(),
                    SIGNALS => self.ended_processes(),
                    key => self.pump(key / 2),
                };
                match result {
                    Ok(None) => {}
                    Ok(Some(end)) => return Ok(end),
                    Err(error) => return Ok(End::ControlLost(error)),
                }
            }
            self.watch_control()?;
        }
    }

    /// Waits for room to send, where something is unsent; and for requests, unless too much is.
    fn watch_control(&self) -> io::Result<()> {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, !self.connection.is_congested());
        flags.set(epoll::EventFlags::OUT, self.connection.has_unsent());
        let key = epoll::EventData::new_u64(CONTROL);
        Ok(epoll::modify(&self.epoll, &self.connection, key, flags)?)
    }

    fn requests(&mut self) -> Result<Option<End>, frame::Error> {
        self.connection.flush()?;
        while let Some(message) = self.connection.next()? {
            if let Request::Shutdown { code } = message.request {
                return Ok(Some(End::Shutdown(code)));
            }
            let result = self.carry_out(message.request).map_err(Into::into);
            self.connection.send(&FromAgent::Reply {
                seq: message.seq,
                result,
            })?;
        }
        Ok(None)
    }

    fn carry_out(&mut self, request: Request) -> Result<Done, Refusal> {
        match request {
            Request::Wake(_) => Err(Refusal::AwakeAlready),
            Request::Mount(mount) => self.mount(&mount),
            Request::Create(create) => self.create(*create),
            Request::Start { container } => self.start(&container),
            Request::Signal {
                container,
                signal,
                all,
            } => self.signal(&container, signal, all),
            Request::Resize { container, size } => {
                let process = self.running(&container)?;
                let terminal = process
                    .terminal
                    .as_ref()
                    .ok_or(Refusal::NoTerminal(container))?;
                set_terminal_size(terminal, size.rows, size.columns).map_err(Refusal::Resize)?;
                Ok(Done::Ok)
            }
            Request::Delete { container } => self.delete(&container),
            Request::Stats { container } => self.stats(&container),
            Request::Shutdown { .. } => unreachable!("taken before"),
        }
    }

    fn get(&mut self, name: &str) -> Result<&mut Container, Refusal> {
        self.containers
            .get_mut(name)
            .ok_or_else(|| Refusal::UnknownContainer(name.to_owned()))
    }

    fn running(&mut self, name: &str) -> Result<&mut Process, Refusal> {
        match &mut self.get(name)?.state {
            State::Running(process) => Ok(process),
            state => Err(wrong_state(name, state, "running")),
        }
    }

    fn mount(&mut self, request: &Mount) -> Result<Done, Refusal> {
        let name = &request.container;
        check_name(name)?;
        if self.containers.contains_key(name) {
            return Err(Refusal::Exists(name.clone()));
        }
        let dir = self.place.run_dir.join("containers").join(name);
        let root = RootFs::mount(dir, request, &mut self.layers, &self.disks)?;
        self.containers.insert(
            name.clone(),
            Container {
                root,
                state: State::Mounted,
            },
        );
        Ok(Done::Ok)
    }

    fn create(&mut self, request: Create) -> Result<Done, Refusal> {
        let name = request.container.clone();
        let place = &self.place;
        let container = self
            .containers
            .get_mut(&name)
            .ok_or_else(|| Refusal::UnknownContainer(name.clone()))?;
        if !matches!(container.state, State::Mounted) {
            return Err(wrong_state(&name, &container.state, "mounted"));
        }
        let waiting = containers::create(request, &container.root, place)?;
        container.state = State::Created(Box::new(waiting));
        Ok(Done::Ok)
    }

    fn start(&mut self, name: &str) -> Result<Done, Refusal> {
        let container = self.get(name)?;
        let waiting = match std::mem::replace(&mut container.state, State::Mounted) {
            State::Created(waiting) => waiting,
            state => {
                let refusal = wrong_state(name, &state, "created");
                container.state = state;
                return Err(refusal);
            }
        };
        // When this fails, the container is as it was before it was created.
        let (process, pumps) = waiting.start(name)?;
        let pid = process.pid;
        container.state = State::Running(process);
        (self.place.on_exec)();
        for pump in pumps {
            let number = self.next_pump;
            self.next_pump += 1;
            self.pumps.insert(number, (name.to_owned(), pump));
            // A pump that cannot be waited for is dropped: the stream ends, and the container sees that.
            if self.turn(number).is_err() {
                self.drop_pump(number);
            }
        }
        Ok(Done::Started {
            pid: pid.as_raw_pid(),
        })
    }

    fn signal(&mut self, name: &str, signal: i32, all: bool) -> Result<Done, Refusal> {
        if !(1..=sigset::MAX).contains(&signal) {
            return Err(Refusal::NoSuchSignal(signal));
        }
        let process = self.running(name)?;
        if all {
            process.cgroup.signal(signal)?;
        } else {
            sigset::kill(process.pid, signal).map_err(Refusal::Signal)?;
        }
        Ok(Done::Ok)
    }

    fn delete(&mut self, name: &str) -> Result<Done, Refusal> {
        let container = self.get(name)?;
        if let State::Running(_) | State::Exited { .. } = container.state {
            return Err(wrong_state(
                name,
                &container.state,
                "mounted, created or exited",
            ));
        }
        // A created process is killed by being dropped.
        container.state = State::Ended;
        container.root.unmount()?;
        self.containers.remove(name);
        Ok(Done::Ok)
    }

    fn stats(&mut self, name: &str) -> Result<Done, Refusal> {
        let usage = self.running(name)?.cgroup.usage();
        Ok(Done::Stats(Stats {
            memory_bytes: usage.memory_bytes,
            cpu_us: usage.cpu_us,
            processes: usage.processes,
            agent_rss_bytes: own_rss_bytes(),
        }))
    }

    /// Reaps what has ended: containers' first processes, and what has been orphaned.
    fn ended_processes(&mut self) -> Result<Option<End>, frame::Error> {
        while let Ok(Some(_)) = self.signals.take() {}
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid, status)?,
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) -> Result<(), frame::Error> {
        let found = self
            .containers
            .iter_mut()
            .find(|(_, container)| match &container.state {
                State::Created(waiting) => waiting.created.pid() == pid,
                State::Running(process) => process.pid == pid,
                _ => false,
            });
        let Some((name, container)) = found else {
            return Ok(());
        };
        if let State::Created(waiting) = &mut container.state {
            waiting.has_died = true;
            return Ok(());
        }
        let name = name.clone();
        let State::Running(process) = std::mem::replace(&mut container.state, State::Ended) else {
            return Ok(());
        };
        let oom_killed = process.cgroup.usage().oom_kills > 0;
        // Kills what a container without a PID namespace of its own leaves. What cannot be removed is in nobody's way.
        let _ = process.cgroup.remove();
        container.state = State::Exited {
            status: exit_status(status),
            oom_killed,
        };
        self.drop_pumps(|owner, pump| owner == name && pump.direction() == Direction::Input);
        self.report_if_drained(&name)
    }

    /// Tells the monitor of an exit once all output is on its way.
    fn report_if_drained(&mut self, name: &str) -> Result<(), frame::Error> {
        if self.pumps.values().any(|(owner, _)| owner == name) {
            return Ok(());
        }
        let Some(container) = self.containers.get_mut(name) else {
            return Ok(());
        };
        let State::Exited { status, oom_killed } = container.state else {
            return Ok(());
        };
        container.state = State::Ended;
        self.connection.send(&FromAgent::Exited {
            container: name.to_owned(),
            status,
            oom_killed,
        })
    }

    /// A side of a pump is ready.
    fn pump(&mut self, number: u64) -> Result<Option<End>, frame::Error> {
        let Ok(Some(name)) = self.turn(number).map_err(|_| self.drop_pump(number)) else {
            return Ok(None);
        };
        self.report_if_drained(&name)?;
        Ok(None)
    }

    /// Gives a pump its turn; the name of its container if it was the last one.
    fn turn(&mut self, number: u64) -> io::Result<Option<String>> {
        let Some((_, pump)) = self.pumps.get_mut(&number) else {
            return Ok(None);
        };
        match pump.turn() {
            Turn::Wait(side) => {
                pump.watch(&self.epoll, 2 * number + u64::from(side == Side::To), side)?;
                Ok(None)
            }
            Turn::Done => Ok(self.drop_pump(number)),
        }
    }

    fn drop_pump(&mut self, number: u64) -> Option<String> {
        let (name, pump) = self.pumps.remove(&number)?;
        pump.unwatch(&self.epoll);
        Some(name)
    }

    fn drop_pumps(&mut self, which: impl Fn(&str, &Pump) -> bool) {
        let numbers = self
            .pumps
            .iter()
            .filter(|(_, (name, pump))| which(name, pump));
        for number in numbers.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.drop_pump(number);
        }
    }

    /// Ends everything: processes, streams, mounts. What fails here stays for the machine's own end.
    fn stop(&mut self) {
        for container in self.containers.values_mut() {
            if let State::Running(process) = std::mem::replace(&mut container.state, State::Ended) {
                let _ = process.cgroup.signal(libc::SIGKILL);
                let _ = waitpid(Some(process.pid), WaitOptions::empty());
                let _ = process.cgroup.remove();
            }
        }
        self.drop_pumps(|_, _| true);
        for mut container in std::mem::take(&mut self.containers).into_values() {
            let _ = container.root.unmount();
        }
        self.layers.unmount_all(&self.disks);
        rustix::fs::sync();
    }
}

fn wrong_state(name: &str, state: &State, wanted: &'static str) -> Refusal {
    Refusal::WrongState {
        name: name.to_owned(),
        state: state.name(),
        wanted,
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status.exit_status() {
        Some(code) => ExitStatus::Code(code as u8),
        None => ExitStatus::Signal(status.terminating_signal().unwrap_or(0) as u8),
    }
}

/// Resident pages (the second field of statm) in bytes; 0 if they cannot be read.
fn own_rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
