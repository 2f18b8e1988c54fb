//! Staying with a process: its streams, its start and its end, over one connection.
//!
//! ```text
//! engine.begin(..) -> Session:  Attached?, Started, (Notice, Console)*, Exited      or Failed
//! ```
//!
//! A front end waits until [`Session`]'s descriptor is readable (it may change from call to call) and then takes events with
//! [`Session::next_ready`], or blocks in [`Session::next`]. Deliberately absent: reading and writing of the streams.

use std::os::fd::{AsFd, BorrowedFd};

use protocol::agent::{Failure, FailureKind, ProcessId, TerminalSize};
use protocol::monitor::{Answer, Exit, Measured, Request, WaitUntil};
use protocol::record::Status;

use crate::connection::{self, Connection, Message, Streams};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Refusal, Subject};
use crate::exec::NewExec;
use crate::sandbox::{Link, conversation};

/// What happens to a process.
#[derive(Debug)]
pub enum Event {
    /// Its streams, as far as they were asked for.
    Attached(Streams),
    /// It executes.
    Started {
        /// In the machine's root PID namespace.
        pid: i32,
    },
    /// It has ended, and everything that it wrote is in the streams.
    Exited(Box<Exit>),
    /// It could not be attached to or started. Nothing follows.
    Failed(Failure),
    /// The answer to [`Session::measure`].
    Measured(Box<Measured>),
    /// Some of the guest's console.
    Console(String),
    /// Something that the user should know.
    Notice(String),
}

/// What a session is for.
#[derive(Debug)]
enum Purpose {
    /// Start the container.
    Start { attach: Option<[bool; 3]> },
    /// Attach to the running container.
    Attach { streams: [bool; 3] },
    /// Wait for the container's end, whoever starts it.
    Await {
        attach: Option<[bool; 3]>,
        until: WaitUntil,
    },
    /// Execute a process in the running container.
    Exec(NewExec),
}

/// The requests in flight.
#[derive(Debug, Default)]
struct Sent {
    attach: Option<u64>,
    start: Option<u64>,
    wait: Option<u64>,
}

/// A conversation about one process.
#[derive(Debug)]
pub struct Session<'a> {
    engine: &'a Engine,
    sandbox: String,
    process: ProcessId,
    purpose: Purpose,
    link: Link,
    sent: Sent,
    /// Whether anything but the greeting was answered: then the monitor was not about to end.
    answered: bool,
    removes: bool,
}

impl Engine {
    /// Begins to start a container, attached to these of its streams (stdin, stdout, stderr) or to none. Returns as soon as
    /// everything is sent: [`Event::Started`] or [`Event::Failed`] follows.
    pub fn begin_start(
        &self,
        reference: &str,
        attach: Option<[bool; 3]>,
    ) -> Result<Session<'_>, Error> {
        let container = self.container(reference)?;
        if container.state.status == Status::Paused {
            return Err(Error::refused(reference, Refusal::StartPaused));
        }
        if !container.state.status.is_alive() {
            self.provide_mounts(&container.config)?;
        }
        let process = ProcessId::first(&container.config.id);
        Session::begin(
            self,
            container.config.sandbox,
            process,
            Purpose::Start { attach },
            container.config.auto_remove,
        )
    }

    /// Starts a container without staying with it; one that runs is left alone.
    pub fn start(&self, reference: &str) -> Result<(), Error> {
        let mut session = self.begin_start(reference, None)?;
        loop {
            match session.next()? {
                Event::Started { .. } => break,
                Event::Failed(failure) if failure.kind == FailureKind::WrongState => {
                    match self.container(reference)?.state.status {
                        Status::Running | Status::Restarting => break,
                        _ => return Err(Error::Failure(failure)),
                    }
                }
                Event::Failed(failure) => return Err(Error::Failure(failure)),
                Event::Exited(exit) => {
                    if let Some(error) = exit.error {
                        return Err(Error::Failure(Failure::new(FailureKind::Other, error)));
                    }
                    break;
                }
                _ => {}
            }
        }
        session.leave();
        Ok(())
    }

    /// Attaches to a running container; its end is reported too.
    pub fn attach(&self, reference: &str, streams: [bool; 3]) -> Result<Session<'_>, Error> {
        let container = self.container(reference)?;
        match container.state.status {
            Status::Running | Status::Restarting => {}
            Status::Paused => return Err(Error::refused(reference, Refusal::AttachPaused)),
            _ => return Err(Error::refused(reference, Refusal::AttachStopped)),
        }
        let process = ProcessId::first(&container.config.id);
        Session::begin(
            self,
            container.config.sandbox,
            process,
            Purpose::Attach { streams },
            container.config.auto_remove,
        )
    }

    /// Waits for a container's end, attached to these of its streams or to none, also if another client has yet to start it:
    /// of a container that is started after this has returned, neither output nor end is missed. [`Event::Attached`] comes
    /// if it has streams, then [`Event::Exited`], or [`Event::Failed`] if its start fails.
    pub fn begin_wait(
        &self,
        reference: &str,
        attach: Option<[bool; 3]>,
        until: WaitUntil,
    ) -> Result<Session<'_>, Error> {
        let container = self.container(reference)?;
        let process = ProcessId::first(&container.config.id);
        Session::begin(
            self,
            container.config.sandbox,
            process,
            Purpose::Await { attach, until },
            container.config.auto_remove,
        )
    }

    /// Executes a process in a container that was running when it was looked at. [`Event::Attached`] comes if it has
    /// streams, then [`Event::Started`] or [`Event::Failed`], then [`Event::Exited`].
    pub fn exec(&self, container: &Container, exec: NewExec) -> Result<Session<'_>, Error> {
        self.begin_exec(container, exec, &["exec_create", "exec_start"])
    }

    /// The same, with the events that tell of it.
    pub(crate) fn begin_exec(
        &self,
        Container { config, state, .. }: &Container,
        exec: NewExec,
        actions: &[&str],
    ) -> Result<Session<'_>, Error> {
        match state.status {
            Status::Running => {}
            Status::Paused => return Err(Error::refused(&config.name, Refusal::ExecPaused)),
            _ => return Err(Error::refused(&config.id, Refusal::NotRunning)),
        }
        for action in actions {
            self.tell_exec(action, config, &exec.id, &exec.config);
        }
        let process = ProcessId::exec(&config.id, &exec.id);
        let sandbox = config.sandbox.clone();
        Session::begin(self, sandbox, process, Purpose::Exec(exec), false)
    }
}

impl<'a> Session<'a> {
    fn begin(
        engine: &'a Engine,
        sandbox: String,
        process: ProcessId,
        purpose: Purpose,
        removes: bool,
    ) -> Result<Session<'a>, Error> {
        let link = Session::link(engine, &sandbox, &process, &purpose)?;
        let mut session = Session {
            engine,
            sandbox,
            process,
            purpose,
            link,
            sent: Sent::default(),
            answered: false,
            removes,
        };
        session.send_all()?;
        Ok(session)
    }

    fn link(
        engine: &Engine,
        sandbox: &str,
        process: &ProcessId,
        purpose: &Purpose,
    ) -> Result<Link, Error> {
        match purpose {
            Purpose::Start { .. } | Purpose::Await { .. } => engine.reach(sandbox),
            Purpose::Attach { .. } | Purpose::Exec(_) => match engine.connect(sandbox)? {
                Some(link) => Ok(link),
                None => Err(Error::refused(&process.container, Refusal::NotRunning)),
            },
        }
    }

    /// Sends everything at once; a wait goes before the start, so that no end is missed however short the container.
    fn send_all(&mut self) -> Result<(), Error> {
        let process = || self.process.clone();
        let link = &mut self.link;
        let mut sent = Sent::default();
        let mut send = || -> Result<(), connection::Error> {
            let connection = &mut link.connection;
            match &self.purpose {
                Purpose::Start { attach } => {
                    if let Some(streams) = *attach {
                        let process = process();
                        sent.attach = Some(connection.send(Request::Attach { process, streams })?);
                    }
                    sent.wait = Some(connection.send(Request::Wait {
                        process: process(),
                        until: WaitUntil::NextExit,
                    })?);
                    let container = self.process.container.clone();
                    sent.start = Some(connection.send(Request::Start { container })?);
                }
                Purpose::Await { attach, until } => {
                    if let Some(streams) = *attach {
                        let process = process();
                        sent.attach = Some(connection.send(Request::Attach { process, streams })?);
                    }
                    sent.wait = Some(connection.send(Request::Wait {
                        process: process(),
                        until: *until,
                    })?);
                }
                Purpose::Attach { streams } => {
                    sent.attach = Some(connection.send(Request::Attach {
                        process: process(),
                        streams: *streams,
                    })?);
                    sent.wait = Some(connection.send(Request::Wait {
                        process: process(),
                        until: WaitUntil::NotRunning,
                    })?);
                }
                Purpose::Exec(exec) => {
                    let is_ours = match link.greet() {
                        Ok(build) => build == protocol::BUILD,
                        // What the connection's end means is decided where it is read next.
                        Err(connection::Error::Closed) => true,
                        Err(error) => return Err(error),
                    };
                    let document = exec.document(is_ours)?;
                    let request = Request::Exec { process: process() };
                    sent.start = Some(link.connection.send_with(request, &[document.as_fd()])?);
                }
            }
            Ok(())
        };
        let result = send();
        self.sent = sent;
        result.map_err(conversation(&self.sandbox))
    }

    /// The next event, waiting for it.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: every event may be an error"
    )]
    pub fn next(&mut self) -> Result<Event, Error> {
        loop {
            let received = self.link.connection.receive();
            if let Some(event) = self.understand(received.map(Some))? {
                return Ok(event);
            }
        }
    }

    /// The next event, if it is there. To be called until there is none when the descriptor is readable.
    pub fn next_ready(&mut self) -> Result<Option<Event>, Error> {
        loop {
            let received = self.link.connection.try_receive();
            if matches!(received, Ok(None)) {
                return Ok(None);
            }
            if let Some(event) = self.understand(received)? {
                return Ok(Some(event));
            }
        }
    }

    fn understand(
        &mut self,
        received: Result<Option<Message>, connection::Error>,
    ) -> Result<Option<Event>, Error> {
        match received {
            Ok(None) => Ok(None),
            Ok(Some(Message::Console(text))) => Ok(Some(Event::Console(text))),
            Ok(Some(Message::Notice(text))) => Ok(Some(Event::Notice(text))),
            Ok(Some(Message::Streams { streams, .. })) => {
                self.answered = true;
                Ok(Some(Event::Attached(streams)))
            }
            Ok(Some(Message::Answer { seq, result })) => {
                if let Some(greeting) = self.link.greeting(seq, &result) {
                    greeting.map_err(conversation(&self.sandbox))?;
                    return Ok(None);
                }
                self.answered = true;
                self.answer(seq, result)
            }
            Err(connection::Error::Closed) => self.closed().map(|()| None),
            Err(error) => Err(conversation(&self.sandbox)(error)),
        }
    }

    fn answer(
        &mut self,
        seq: u64,
        result: Result<Answer, Failure>,
    ) -> Result<Option<Event>, Error> {
        let is = |sent: Option<u64>| sent == Some(seq);
        match result {
            Ok(Answer::Started { pid }) => {
                if self.sent.wait.is_none() {
                    self.wait(WaitUntil::NotRunning)?;
                }
                Ok(Some(Event::Started { pid }))
            }
            Ok(Answer::Exited(exit)) => Ok(Some(Event::Exited(exit))),
            Ok(Answer::Measured(measured)) => Ok(Some(Event::Measured(measured))),
            Ok(_) => Ok(None),
            Err(_) if is(self.sent.wait) && self.sent.start.is_some() => {
                // It is asked again when the process executes.
                self.sent.wait = None;
                Ok(None)
            }
            Err(failure) if is(self.sent.start) || is(self.sent.attach) || is(self.sent.wait) => {
                Ok(Some(Event::Failed(failure)))
            }
            // A signal or a size that came too late.
            Err(failure) => {
                tracing::debug!(message = failure.message, "a request failed");
                Ok(None)
            }
        }
    }

    /// The monitor has closed the connection. One that was ending is waited for, and the work begins again with another
    /// (lifecycle H10); one that lost its speaker and goes on by a restart policy is asked again (lifecycle H23).
    fn closed(&mut self) -> Result<(), Error> {
        let has_ended = self.engine.has_ended(&self.sandbox)?;
        if let Some(mut monitor) = self.link.take_spawned() {
            if has_ended {
                let status = match monitor.wait() {
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                self.engine.repair(&self.sandbox)?;
                return Err(Error::MonitorGone {
                    sandbox: self.sandbox.clone(),
                    status,
                });
            }
            self.engine.adopt(monitor);
        }
        let may_repeat = match self.purpose {
            Purpose::Start { .. } | Purpose::Attach { .. } | Purpose::Await { .. } => true,
            // It may have been executed.
            Purpose::Exec(_) => has_ended,
        };
        if self.answered || !may_repeat {
            self.engine.repair(&self.sandbox)?;
            return Err(conversation(&self.sandbox)(connection::Error::Closed));
        }
        if self.engine.exists(&self.process.container) {
            self.link = Session::link(self.engine, &self.sandbox, &self.process, &self.purpose)?;
            self.send_all()
        } else {
            Err(Error::not_found(
                Subject::Container,
                &self.process.container,
            ))
        }
    }

    /// The connection, for requests of the front end's own; their answers are not events.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.link.connection
    }

    /// Signals the process.
    pub fn signal(&mut self, signal: i32) -> Result<(), Error> {
        let process = self.process.clone();
        self.send(Request::Signal { process, signal })
    }

    /// Tells the process the size of its terminal.
    pub fn resize(&mut self, size: TerminalSize) -> Result<(), Error> {
        let process = self.process.clone();
        self.send(Request::Resize { process, size })
    }

    /// Says that the streams are about to be closed, and that the process's input does not end by that.
    pub fn detach(&mut self) -> Result<(), Error> {
        let process = self.process.clone();
        self.send(Request::Detach { process })
    }

    /// Asks for the sandbox's clock and counters: [`Event::Measured`] follows.
    pub fn measure(&mut self) -> Result<(), Error> {
        self.send(Request::Measure)
    }

    fn wait(&mut self, until: WaitUntil) -> Result<(), Error> {
        let process = self.process.clone();
        let sent = self.link.connection.send(Request::Wait { process, until });
        self.sent.wait = Some(sent.map_err(conversation(&self.sandbox))?);
        Ok(())
    }

    fn send(&mut self, request: Request) -> Result<(), Error> {
        let sent = self.link.connection.send(request);
        sent.map(drop).map_err(conversation(&self.sandbox))
    }

    /// Ends the conversation; the process goes on.
    pub fn leave(self) {}

    /// Ends the conversation after the process's end. A container that is removed at its end has been removed when this
    /// returns.
    pub fn finish(self) -> Result<(), Error> {
        let (engine, sandbox, removes) = (self.engine, self.sandbox.clone(), self.removes);
        let container = self.process.container.clone();
        // The sandbox ends when no client is connected.
        self.leave();
        match removes {
            true => engine.await_removal(&container, &sandbox),
            false => Ok(()),
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(monitor) = self.link.take_spawned() {
            self.engine.adopt(monitor);
        }
    }
}

impl AsFd for Session<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.connection.as_fd()
    }
}

#[cfg(test)]
mod tests;
