//! Networks that come and go while the sandbox runs (lifecycle H36 to H38).

use protocol::record::Attachment;

use super::*;
use crate::attached::{self, Changed};
use crate::devices::NetworkEnd;
use crate::link::NewNetworks;

/// Why a sandbox's networks stay as they were.
#[derive(Debug, thiserror::Error)]
enum Unchanged {
    #[error(transparent)]
    Record(#[from] members::Error),
    #[error("cannot change the container's networks")]
    Networks(#[from] attached::Error),
    #[error("the machine has ended")]
    NoMachine,
}

impl Life {
    /// The sandbox's record was rewritten: it is to be on the networks that it names, whatever the speaker says.
    pub(super) fn change_networks(
        &mut self,
        warden: &mut Warden,
        container: String,
    ) -> Result<(), Breach> {
        member(warden, &container)?;
        let (result, files) = match self.try_change(warden, &container) {
            Ok((changed, config)) => {
                let attachments = self
                    .host
                    .as_ref()
                    .map_or_else(Vec::new, HostSide::attachments);
                let (ends, plugged): (Vec<OwnedFd>, Vec<_>) = changed
                    .plugged
                    .into_iter()
                    .map(|(slot, NetworkEnd { descriptor, wire })| (descriptor, (slot, wire)))
                    .unzip();
                let networks = NewNetworks {
                    interfaces: attachments.iter().map(|it| it.interface.clone()).collect(),
                    unplugged: changed.unplugged,
                    plugged,
                };
                self.record_networks(warden, &container, attachments)?;
                (Ok(networks), [config].into_iter().chain(ends).collect())
            }
            Err(error) => {
                let failure = Failure::new(FailureKind::Other, chain(&error));
                (Err(failure), Vec::new())
            }
        };
        let message = ToSpeaker::Networks { container, result };
        self.tell(&message, files.iter().map(AsFd::as_fd))
    }

    /// What has changed, and the container's record.
    fn try_change(
        &mut self,
        warden: &mut Warden,
        container: &str,
    ) -> Result<(Changed, OwnedFd), Unchanged> {
        warden.reload_networks()?;
        let member = warden.members.load(container)?;
        member.reload()?;
        let config = member.open_config()?;
        let host = self.host.as_mut().ok_or(Unchanged::NoMachine)?;
        Ok((host.bring_networks(&warden.config)?, config))
    }

    /// What is shown of the container, if it runs: one that starts is recorded with its start.
    fn record_networks(
        &mut self,
        warden: &mut Warden,
        container: &str,
        attachments: Vec<Attachment>,
    ) -> Result<(), Breach> {
        let ports = self.host.as_ref().map_or_else(Vec::new, HostSide::ports);
        if !matches!(
            member(warden, container)?.state.status,
            Status::Running | Status::Paused
        ) {
            return Ok(());
        }
        self.write_record(warden, container, "", &[], |state| {
            (state.interfaces, state.ports) = (attachments, ports);
        })
    }
}
