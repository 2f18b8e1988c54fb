//! What a sandbox's containers share: a network namespace and a PID namespace.

use protocol::agent::Interface;

use crate::Surroundings;
use crate::failure::Refusal;

/// The namespaces of the sandbox, once they are wanted.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    interface: Option<Interface>,
}

impl Sandbox {
    pub(crate) fn add_network(
        &mut self,
        _place: &Surroundings,
        interface: &Interface,
    ) -> Result<(), Refusal> {
        if self.interface.is_some() {
            return Err(Refusal::NetworkExists);
        }
        self.interface = Some(interface.clone());
        Ok(())
    }

    pub(crate) fn interface(&self) -> Option<&Interface> {
        self.interface.as_ref()
    }

    pub(crate) fn end(&mut self) {}
}
