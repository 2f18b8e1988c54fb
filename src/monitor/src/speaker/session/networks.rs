//! Networks that come and go while the sandbox's only container is there.

use protocol::agent::{EtcFiles, Failure, FailureKind, Interface, Networks, Request};
use protocol::monitor::Answer;

use super::agent::Awaited;
use super::process::Stage;
use super::{Ask, Session};
use crate::link::ToWarden;

impl Session {
    /// A client has rewritten the sandbox's record.
    pub(super) fn change_networks(&mut self, ask: Ask, container: String) {
        if self.setting.pod {
            let why = "the networks of a pod are those that it was made with";
            return self.refuse(ask, FailureKind::Invalid, why);
        }
        self.changing_networks.push_back(ask);
        self.tell(ToWarden::Networks { container });
    }

    /// The warden has attached the sandbox to its networks, and the container's files in /etc are to say so; or all is as it
    /// was.
    pub(crate) fn networks_changed(
        &mut self,
        id: &str,
        result: Result<(Vec<Interface>, EtcFiles), Failure>,
    ) {
        let Some(ask) = self.changing_networks.pop_front() else {
            return;
        };
        let (interfaces, etc) = match result {
            Ok(changed) => changed,
            Err(failure) => return self.answer(ask, Err(failure)),
        };
        let old = std::mem::replace(&mut self.setting.interfaces, interfaces.clone());
        let Some(container) = self.containers.get_mut(id) else {
            return self.answer(ask, Ok(Answer::Done));
        };
        let run = &mut container.config.run;
        let before = run.etc_with(&old);
        run.etc = etc;
        let after = run.etc_with(&interfaces);
        match container.first.stage {
            // Behind the requests that make and start it, where those are on their way.
            Stage::Asked | Stage::Executing { .. } if run.network => {
                let networks = Networks {
                    container: id.to_owned(),
                    interfaces,
                    before,
                    after,
                };
                let request = Request::Networks(Box::new(networks));
                self.ask_agent(request, Awaited::Answer(ask));
            }
            // It is made with them.
            _ => self.answer(ask, Ok(Answer::Done)),
        }
    }
}
