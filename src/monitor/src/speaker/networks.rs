//! Networks that come and go: what the warden has attached goes to hull-vmm and to the session.

use super::*;
use crate::devices::NetworkEnd;
use crate::link::NewNetworks;

impl Speaker {
    /// The sandbox's networks are others. A VM's cards lead there before the guest is told of them.
    pub(super) fn networks_changed(
        &mut self,
        container: &str,
        result: Result<NewNetworks, Failure>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Error> {
        let mut descriptors = descriptors.into_iter();
        let changed = result.and_then(|networks| {
            let file = descriptors
                .next()
                .ok_or_else(|| broken("its record did not come"))?;
            let config = client::read_document::<ContainerConfig>(file)
                .map_err(|error| broken(&chain(&error)))?;
            Ok((networks, config))
        });
        let (networks, config) = match changed {
            Ok(changed) => changed,
            Err(failure) => {
                self.session.networks_changed(container, Err(failure));
                return Ok(());
            }
        };
        for slot in networks.unplugged {
            self.plug(slot, None)?;
        }
        for ((slot, wire), descriptor) in networks.plugged.into_iter().zip(descriptors) {
            self.plug(slot, Some(NetworkEnd { descriptor, wire }))?;
        }
        let etc = config.run.etc;
        self.session
            .networks_changed(container, Ok((networks.interfaces, etc)));
        Ok(())
    }

    /// Has a VM's network card lead there, or nowhere.
    fn plug(&mut self, slot: u8, end: Option<NetworkEnd>) -> Result<(), Error> {
        let Some(Machine {
            backend: Backend::Vm(side),
            ..
        }) = &mut self.machine
        else {
            return Ok(());
        };
        let told = match end {
            Some(end) => side.vmm.plug(slot, end),
            None => side.vmm.unplug(slot),
        };
        match told {
            Ok(()) => Ok(()),
            Err(error) => self.machine_broke(chain(&error)),
        }
    }
}
