//! The speaker's side of the machine: the agent's connection, hull-vmm's packets, the guest's console.

use super::*;
use crate::machine::Measurable;
use crate::vmm;

impl Speaker {
    /// The agent has said something, takes something, or is gone.
    pub(super) fn agent_ready(&mut self) -> Result<(), Error> {
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        let said = agent.flush().and_then(|()| agent.receive());
        match said {
            Ok(said) => self.hear(said),
            Err(error) => return self.agent_gone(error),
        }
        self.watch_agent()
    }

    fn hear(&mut self, said: Vec<Said>) {
        for said in said {
            match said {
                Said::Hello => {
                    self.hello_ns = Some(sys::clock::monotonic_ns());
                    self.session.agent_hello();
                }
                Said::Message(message) => self.session.agent_said(message),
            }
        }
    }

    fn watch_agent(&mut self) -> Result<(), Error> {
        let Some(agent) = &self.agent else {
            return Ok(());
        };
        let wanted = Ready::read_and(agent.has_unsent());
        Ok(self.poller.change(agent.socket(), Source::Agent, wanted)?)
    }

    /// Sends the agent a request, or keeps it until the agent reads.
    pub(super) fn ask_agent(&mut self, seq: u64, request: ToAgent) -> Result<(), Error> {
        let Some(agent) = &mut self.agent else {
            let result = Err(Failure::new(FailureKind::Other, "the machine has ended"));
            self.session.agent_said(FromAgent::Reply { seq, result });
            return Ok(());
        };
        match agent.request(seq, request) {
            Ok(()) => self.watch_agent(),
            // What cannot be asked fails alone.
            Err(agent::Error::Frame(error)) => {
                let message = format!("the request is too long: {}", chain(&error));
                let result = Err(Failure::new(FailureKind::Invalid, message));
                self.session.agent_said(FromAgent::Reply { seq, result });
                Ok(())
            }
            Err(error) => self.agent_gone(error),
        }
    }

    /// The agent is gone, or makes no sense. hull-vmm knows better why it is gone, and says so within a moment.
    fn agent_gone(&mut self, error: agent::Error) -> Result<(), Error> {
        let mut message = chain(&error);
        if matches!(error, agent::Error::Closed)
            && let Some(Machine {
                backend: Backend::Vm(side),
                ..
            }) = &mut self.machine
        {
            match side.vmm.receive_end() {
                Some(Ok(end)) => {
                    // That the console cannot be read is no reason to say less.
                    let _ = side.console.read();
                    message = vmm::explain(&end, side.console.panic());
                }
                Some(Err(error)) => message = chain(&error),
                // The guest lives and has hung up. It ends with this.
                None => {}
            }
        }
        self.machine_broke(message)
    }

    /// hull-vmm has said something.
    pub(super) fn vmm_ready(&mut self) -> Result<(), Error> {
        let Some(Machine {
            backend: Backend::Vm(side),
            ..
        }) = &mut self.machine
        else {
            return Ok(());
        };
        match side.vmm.receive() {
            Ok(FromVmm::Running) => {}
            Ok(FromVmm::Report(report)) => {
                let measured = side.measurable.as_mut().and_then(|how| match how {
                    Measurable::Here(files) => files.measure(&report).ok(),
                    Measurable::Elsewhere(pids) => Some(pids.counters(&report)),
                });
                let (began, made) = (side.began, side.template_made);
                let hello = self.hello_ns;
                let measured = measured.map(|mut measured| {
                    measured.began = Some(began);
                    measured.timeline.template_made = made;
                    measured.timeline.hello = hello;
                    Box::new(measured)
                });
                self.session.measured(measured);
            }
            Ok(FromVmm::Added { request }) => {
                if let Some((container, layers)) = self.adding.remove(&request) {
                    self.session.placed(&container, Ok(layers));
                }
            }
            Ok(FromVmm::Refused { request, message }) => {
                if let Some((container, _)) = self.adding.remove(&request) {
                    let failure = Failure::new(FailureKind::Other, message);
                    self.session.placed(&container, Err(failure));
                }
            }
            Ok(FromVmm::StreamFailed { port, message }) => {
                if let Some(process) = self.streams.process_of(port) {
                    self.session.output_lost(&process, &message);
                    self.session.stream_ended(&process, port);
                }
            }
            Ok(FromVmm::Ended { end, .. }) => {
                // That the console cannot be read is no reason to say less.
                let _ = side.console.read();
                let message = vmm::explain(&end, side.console.panic());
                return self.machine_broke(message);
            }
            Ok(FromVmm::Failed { message }) => {
                return self.machine_broke(format!("cannot build the VM: {message}"));
            }
            Err(error) => return self.machine_broke(chain(&error)),
        }
        Ok(())
    }

    /// The machine has ended. What it had said before is heard first (lifecycle H16).
    pub(super) fn machine_broke(&mut self, message: String) -> Result<(), Error> {
        if let Some(agent) = &mut self.agent {
            let mut heard = Vec::new();
            while let Ok(said) = agent.receive() {
                match said.is_empty() {
                    true => break,
                    false => heard.extend(said),
                }
            }
            self.hear(heard);
        }
        let drained = self.streams.drain(&self.poller)?;
        self.stream_events(drained)?;
        let console = match &mut self.machine {
            Some(Machine {
                backend: Backend::Vm(side),
                ..
            }) => {
                let _ = side.console.read();
                side.console.last_lines()
            }
            _ => Vec::new(),
        };
        self.forget_machine();
        self.session.machine_ended(Broken { message, console });
        Ok(())
    }

    /// Nothing more is heard of the machine.
    pub(super) fn forget_machine(&mut self) {
        if let Some(agent) = self.agent.take() {
            self.poller.remove(agent.socket());
        }
        if let Some(machine) = self.machine.take() {
            if let Backend::Vm(side) = &machine.backend {
                self.poller.remove(side.vmm.descriptor());
                if let Some(console) = side.console.descriptor() {
                    self.poller.remove(console);
                }
            }
            self.poller.remove(&self.status);
        }
    }

    /// The guest has printed something on its console.
    pub(super) fn console_ready(&mut self) -> Result<(), Error> {
        let Some(Machine {
            backend: Backend::Vm(side),
            ..
        }) = &mut self.machine
        else {
            return Ok(());
        };
        let text = side.console.read()?;
        if side.console.is_over() {
            self.poller.remove(side.console.pipe());
        }
        if side.show_console && !text.is_empty() {
            let clients: Vec<ClientId> = self.clients.keys().copied().collect();
            for id in clients {
                // What does not fit is dropped, but not the client.
                if self.clients.get(&id).is_some_and(Client::is_idle) {
                    let text = text.clone();
                    self.send(id, &FromMonitor::Console { text }, Vec::new());
                }
            }
        }
        Ok(())
    }

    /// Lets the agent open a stream.
    pub(super) fn open(
        &mut self,
        stream: &protocol::agent::Stream,
        role: session::Role,
    ) -> Result<(), Error> {
        let Some(machine) = &mut self.machine else {
            return Ok(());
        };
        let (ours, theirs) = sys::packet::stream_pair()?;
        if let Err(error) = machine.offer(stream.port, theirs) {
            return self.machine_broke(chain(&error));
        }
        Ok(self.streams.open(&self.poller, stream, role, ours)?)
    }

    /// Offers the guest a connection to the host's socket.
    pub(super) fn join(&mut self, connection: u64, port: u32) -> Result<(), Error> {
        let (Some(machine), Some(socket)) = (&mut self.machine, self.reached.remove(&connection))
        else {
            return Ok(());
        };
        match machine.offer(port, socket) {
            Ok(()) => Ok(()),
            Err(error) => self.machine_broke(chain(&error)),
        }
    }

    /// Puts a container's layers where the agent finds them.
    pub(super) fn place(&mut self, container: &str) {
        let layers = match self.session.config(container) {
            Some(config) => config.run.layers.clone(),
            None => return,
        };
        let placed = match &mut self.machine {
            Some(machine) => machine.place_layers(&layers),
            None => return,
        };
        let failed = |message: String| Err(Failure::new(FailureKind::Other, message));
        match placed {
            Ok((places, new)) if new.is_empty() => self.session.placed(container, Ok(places)),
            Ok((places, new)) => {
                if let Err(message) = self.add_layers(container, &layers, places, new) {
                    self.session.placed(container, failed(message));
                }
            }
            Err(error) => self.session.placed(container, failed(chain(&error))),
        }
    }

    fn add_layers(
        &mut self,
        container: &str,
        layers: &[protocol::record::LayerFile],
        places: Vec<protocol::agent::Layer>,
        new: Vec<(usize, u64)>,
    ) -> Result<(), String> {
        let files = self.layer_files.get_mut(container);
        let files = files.ok_or("the files of its layers did not come")?;
        let mut added = Vec::new();
        for (index, offset_bytes) in new {
            let file = files.get_mut(index).and_then(Option::take);
            let file = file.ok_or("the file of a layer did not come")?;
            added.push((file, layers[index].len_bytes, offset_bytes));
        }
        let Some(Machine {
            backend: Backend::Vm(side),
            ..
        }) = &mut self.machine
        else {
            return Err("only VMs have a layer device".to_owned());
        };
        let request = self.next_addition;
        self.next_addition = self.next_addition.wrapping_add(1);
        side.vmm
            .add_layers(request, added)
            .map_err(|error| chain(&error))?;
        self.adding.insert(request, (container.to_owned(), places));
        Ok(())
    }

    /// Passes the socket of a hull-fs on to hull-vmm.
    pub(super) fn serve_fs(&mut self, socket: OwnedFd) -> Result<(), Error> {
        let Some(Machine {
            backend: Backend::Vm(side),
            ..
        }) = &mut self.machine
        else {
            return Ok(());
        };
        match side.vmm.serve_fs(socket) {
            Ok(()) => Ok(()),
            Err(error) => self.machine_broke(chain(&error)),
        }
    }

    /// Asks for what is measured.
    pub(super) fn measure(&mut self) {
        let asked = match &mut self.machine {
            Some(Machine {
                backend: Backend::Vm(side),
                ..
            }) => side.vmm.ask_report().is_ok(),
            _ => false,
        };
        if !asked {
            let native = matches!(
                self.machine.as_ref().map(|machine| &machine.backend),
                Some(Backend::Native { .. })
            );
            // Of a native sandbox nothing is known but that it is one.
            let measured = native.then(|| Box::new(Measured::default()));
            self.session.measured(measured);
        }
    }
}
