//! Requests about a container's files, for which its root is mounted if it is not.

use protocol::agent::{Done, Failure, FailureKind, Request as ToAgent, Stream};
use protocol::monitor::Request;

use super::agent::Awaited;
use super::container::{Mounted, Phase};
use super::{Ask, Role, Session};

impl Session {
    /// Carries out a request that needs a container's root.
    pub(super) fn with_root(&mut self, ask: Ask, request: Request) {
        if let Some(failure) = self.end.broken.clone() {
            return self.answer(ask, Err(failure));
        }
        let id = match &request {
            Request::Stat { container, .. }
            | Request::Archive { container, .. }
            | Request::Extract { container, .. }
            | Request::Diff { container }
            | Request::Changes { container } => container.clone(),
            _ => return self.refuse(ask, FailureKind::Invalid, "not a request about files"),
        };
        let Some(container) = self.containers.get_mut(&id) else {
            return self.refuse(
                ask,
                FailureKind::NotFound,
                format!("No such container: {id}"),
            );
        };
        if container.mounted == Mounted::Yes {
            return self.about_files(ask, request);
        }
        container.after_mount.push_back((ask, request));
        self.advance(&id);
    }

    /// The agent has mounted a container's root, or could not.
    pub(super) fn mounted(&mut self, id: &str, result: Result<Done, Failure>) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if let Err(failure) = result {
            container.mounted = Mounted::No;
            return self.mount_failed(id, failure);
        }
        container.mounted = Mounted::Yes;
        let waiting = std::mem::take(&mut container.after_mount);
        for (ask, request) in waiting {
            match request {
                Request::Remove { container } => self.remove(ask, &container),
                request => self.about_files(ask, request),
            }
        }
        self.advance(id);
    }

    fn about_files(&mut self, ask: Ask, request: Request) {
        let request = match request {
            Request::Stat {
                container,
                path,
                follow,
            } => {
                let request = ToAgent::Stat {
                    container,
                    path,
                    follow,
                };
                return self.ask_agent(request, Awaited::Answer(ask));
            }
            other => other,
        };
        let stream = match self.open(Role::Transfer(ask)) {
            Ok(stream) => stream,
            Err(failure) => return self.answer(ask, Err(failure)),
        };
        let port = stream.port;
        if let Some(request) = transfer(request, stream) {
            self.ask_agent(request, Awaited::Transfer { ask, port });
        }
    }

    /// Takes a container that does not run out of the machine, with what it has written.
    pub(super) fn remove(&mut self, ask: Ask, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return self.refuse(
                ask,
                FailureKind::NotFound,
                format!("No such container: {id}"),
            );
        };
        if container.phase != Phase::Idle {
            let failure = container.wrong_state("is running: stop it before removing it");
            return self.answer(ask, Err(failure));
        }
        let container_id = id.to_owned();
        if container.mounted != Mounted::Yes {
            let request = Request::Remove {
                container: container_id,
            };
            container.after_mount.push_back((ask, request));
            return self.advance(id);
        }
        let request = ToAgent::Delete {
            container: container_id.clone(),
            writable: true,
        };
        self.ask_agent(
            request,
            Awaited::Deleted {
                ask,
                container: container_id,
            },
        );
    }

    /// Takes a container of a pod, which goes on, out of the machine when it has ended and is to be removed at its end. A
    /// sandbox of a single container goes as a whole.
    pub(super) fn remove_at_its_end(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        if self.setting.pod && container.config.auto_remove && container.phase == Phase::Idle {
            let request = ToAgent::Delete {
                container: id.to_owned(),
                writable: true,
            };
            let container = id.to_owned();
            self.ask_agent(request, Awaited::Removed { container });
        }
    }
}

fn transfer(request: Request, stream: Stream) -> Option<ToAgent> {
    Some(match request {
        Request::Archive {
            container,
            path,
            follow,
        } => ToAgent::Archive {
            container,
            path,
            follow,
            stream,
        },
        Request::Extract {
            container,
            path,
            owners,
            no_overwrite_kind,
        } => ToAgent::Extract {
            container,
            path,
            owners,
            no_overwrite_kind,
            stream,
        },
        Request::Diff { container } => ToAgent::Diff { container, stream },
        Request::Changes { container } => ToAgent::Changes { container, stream },
        _ => return None,
    })
}
