//! Freezing containers, and their ends: of a run, of a container, of the agent.
//!
//! ```text
//! first process exits --> cgroup killed --> (empty) --> removed         the container may be created again
//! Delete --> process and workers killed --> (cgroup gone) --> unmounted --> [writable directory removed] --> forgotten
//! ```

use std::os::fd::AsFd;
use std::time::Duration;

use protocol::agent::{Done, ProcessId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::containers::{Container, Freeze, Phase};
use crate::failure::Refusal;
use crate::poll::{EventFlags, Side};
use crate::remains::Remains;
use crate::requests::{Begun, wrong_state};
use crate::server::{Server, Source};

/// How long the agent, at its own end, waits for killed processes of a container: they end at once, unless the kernel holds
/// them in a call that cannot be interrupted.
const PATIENCE: Duration = Duration::from_secs(5);

impl Container {
    /// None of its processes is frozen.
    pub(crate) fn is_thawed(&self) -> bool {
        matches!(self.freeze, Freeze::Thawed)
    }
}

impl Server {
    pub(crate) fn pause(&mut self, seq: u64, name: &str) -> Begun {
        let state = self.state_of(name);
        if state != "running" {
            return Err(wrong_state(name, state, "running"));
        }
        let container = self.containers.get_mut(name).expect("begun");
        let cgroup = container.running.as_ref().expect("running").cgroup();
        let mut events = cgroup.events()?;
        let number = self.poll.number();
        self.poll
            .add(&events, number, Side::From, EventFlags::PRI)
            .map_err(|source| Refusal::Wait {
                what: "the container's cgroup",
                source,
            })?;
        match cgroup.freeze().and_then(|()| events.state()) {
            Ok(state) if state.frozen => {
                self.poll.delete(&events);
                container.freeze = Freeze::Frozen;
                Ok(Some(Done::Ok))
            }
            Ok(_) => {
                container.freeze = Freeze::Freezing {
                    seq,
                    number,
                    events,
                };
                self.sources
                    .insert(number, Source::Freezing(name.to_owned()));
                Ok(None)
            }
            Err(error) => {
                self.poll.delete(&events);
                Err(error.into())
            }
        }
    }

    /// The events of a container that is being frozen have changed.
    pub(crate) fn freezing(&mut self, name: &str) {
        let Some(container) = self.containers.get_mut(name) else {
            return;
        };
        let Freeze::Freezing { events, .. } = &mut container.freeze else {
            return;
        };
        let result = match events.state() {
            Ok(state) if !state.frozen => return,
            Ok(_) => Ok(Done::Ok),
            Err(error) => Err(error.into()),
        };
        let after = match &result {
            Ok(_) => Freeze::Frozen,
            Err(_) => Freeze::Thawed,
        };
        self.end_freezing(name, after, result);
    }

    /// Answers a Pause that has not been answered.
    fn end_freezing(&mut self, name: &str, after: Freeze, result: Result<Done, Refusal>) {
        let Some(container) = self.containers.get_mut(name) else {
            return;
        };
        if let Freeze::Freezing {
            seq,
            number,
            events,
        } = std::mem::replace(&mut container.freeze, after)
        {
            self.poll.delete(&events);
            self.sources.remove(&number);
            self.reply(seq, result);
        }
    }

    pub(crate) fn resume(&mut self, name: &str) -> Begun {
        let state = self.state_of(name);
        if state != "paused" {
            return Err(wrong_state(name, state, "paused"));
        }
        let running = self.containers[name].running.as_ref();
        running.expect("paused").cgroup().thaw()?;
        let resumed = Err(Refusal::Resumed(name.to_owned()));
        self.end_freezing(name, Freeze::Thawed, resumed);
        Ok(Some(Done::Ok))
    }

    /// A container's first process is no more: what is left of the run goes too.
    pub(crate) fn end_run(&mut self, name: &str) {
        let ended = Err(Refusal::EndedBeforeFrozen(name.to_owned()));
        self.end_freezing(name, Freeze::Thawed, ended);
        let Some(container) = self.containers.get_mut(name) else {
            return;
        };
        container.running = None;
        if container.remains.is_some() {
            return;
        }
        // What cannot be killed or removed stays; a container that is created under this name will say so.
        let Ok(Some(remains)) = Remains::of(&self.place.cgroup.join(name)) else {
            return;
        };
        let number = self.poll.number();
        let watched = self.poll.add(&remains, number, Side::From, EventFlags::PRI);
        if watched.is_ok() {
            self.sources
                .insert(number, Source::Remains(name.to_owned()));
            container.remains = Some((number, remains));
            self.clear(name);
        }
    }

    /// Removes what is left of a container's last run, if its processes have gone.
    pub(crate) fn clear(&mut self, name: &str) {
        let Some(container) = self.containers.get_mut(name) else {
            return;
        };
        let Some((number, remains)) = &mut container.remains else {
            return;
        };
        if let Ok(false) = remains.try_remove() {
            return;
        }
        self.poll.delete(&*remains);
        self.sources.remove(number);
        container.remains = None;
        self.finish_removal(name);
        self.go_on(name);
    }

    /// As [`Server::clear`], for every container that has ended and has something left.
    pub(crate) fn clear_all(&mut self) {
        let with_remains = self.containers.iter().filter(|(_, c)| c.remains.is_some());
        let names: Vec<String> = with_remains.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.clear(&name);
        }
    }

    pub(crate) fn delete(&mut self, seq: u64, name: &str, writable: bool) -> Begun {
        let id = ProcessId::first(name);
        match self.processes.get(&id).map(|process| &process.phase) {
            None | Some(Phase::Created(_) | Phase::Died) => {}
            Some(_) => {
                let state = self.state_of(name);
                return Err(wrong_state(
                    name,
                    state,
                    "not running, with all of its output taken",
                ));
            }
        }
        let container = self.containers.get_mut(name).expect("begun");
        container.is_held = true;
        container.removal = Some((seq, writable));
        self.give_up(&id);
        self.dismiss_workers(name);
        // Execs were killed with the run. What they wrote last is lost to a host that has not taken it by now.
        let pumps: Vec<_> = self
            .processes
            .iter()
            .filter(|(id, _)| id.container == name)
            .flat_map(|(_, process)| process.pumps.clone())
            .collect();
        for number in pumps {
            self.retire(number);
        }
        self.finish_removal(name);
        Ok(None)
    }

    /// Carries a Delete on, once nothing of the container runs.
    pub(crate) fn finish_removal(&mut self, name: &str) {
        let Some(container) = self.containers.get_mut(name) else {
            return;
        };
        let has_process = self.processes.keys().any(|id| id.container == name);
        if has_process || container.remains.is_some() {
            return;
        }
        let Some((seq, writable)) = container.removal else {
            return;
        };
        let unmounted = container.root.unmount(&mut self.layers);
        let leftover = container.root.writable_directory().filter(|_| writable);
        match (unmounted, leftover) {
            (Ok(()), Some(directory)) => {
                let begun = self.remove_directory(seq, name, directory);
                if let Err(refusal) = begun {
                    self.removed(name, seq, Err(refusal));
                }
            }
            (result, _) => self.removed(name, seq, result.map(|()| Done::Ok)),
        }
    }

    /// A Delete has come to its end. A container that could not be removed stays as it is, to be deleted again.
    pub(crate) fn removed(&mut self, name: &str, seq: u64, result: Result<Done, Refusal>) {
        let is_gone = result.is_ok();
        self.reply(seq, result);
        if is_gone {
            let container = self.containers.remove(name);
            // Requests behind the Delete are for what comes after it.
            for (seq, request) in container.into_iter().flat_map(|c| c.queue) {
                self.take(seq, request);
            }
        } else if let Some(container) = self.containers.get_mut(name) {
            container.removal = None;
            container.is_held = false;
            self.go_on(name);
        }
    }

    /// Ends everything: processes, streams, mounts. What fails here stays for the machine's own end.
    pub(crate) fn stop(&mut self) {
        let names: Vec<String> = self.containers.keys().cloned().collect();
        let ids: Vec<ProcessId> = self.processes.keys().cloned().collect();
        for container in self.containers.values_mut() {
            container.queue.clear();
            container.is_held = true;
        }
        for id in &ids {
            self.give_up(id);
        }
        for name in &names {
            self.dismiss_workers(name);
            self.end_run(name);
            self.wait_for_remains(name);
        }
        self.sandbox.end();
        for container in self.containers.values_mut() {
            let _ = container.root.unmount(&mut self.layers);
        }
        self.layers.unmount_all(&self.disks);
        self.disks.unmount_all();
        rustix::fs::sync();
    }

    fn wait_for_remains(&mut self, name: &str) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            self.reap();
            self.clear(name);
            let container = self.containers.get(name);
            let Some((_, remains)) = container.and_then(|c| c.remains.as_ref()) else {
                return;
            };
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let Ok(left) = Timespec::try_from(left) else {
                return;
            };
            // A process that has ended is in no cgroup, whether it is reaped or not.
            let mut fds = [
                PollFd::new(remains, PollFlags::PRI),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            if let Ok(0) | Err(_) = poll(&mut fds, Some(&left)) {
                return;
            }
        }
    }
}
