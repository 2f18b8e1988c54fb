//! The connections of a device: found by their ports and by a small number, which their events carry.

use std::collections::HashMap;

use super::connection::{Connection, Ports};

/// Number of a connection while it lives; reused afterwards.
pub(super) type Number = u32;

#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Option<Connection>>,
    free: Vec<Number>,
    by_ports: HashMap<Ports, Number>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, connection: Connection) -> Number {
        let ports = connection.ports;
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as Number - 1
        });
        self.slots[number as usize] = Some(connection);
        self.by_ports.insert(ports, number);
        number
    }

    /// The connection that the guest means by these ports.
    pub(super) fn find(&self, ports: Ports) -> Option<Number> {
        self.by_ports.get(&ports).copied()
    }

    pub(super) fn get(&mut self, number: Number) -> Option<&mut Connection> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    /// The guest may use the ports again; the connection keeps its number.
    pub(super) fn forget_ports(&mut self, ports: Ports) {
        self.by_ports.remove(&ports);
    }

    pub(super) fn remove(&mut self, number: Number) -> Option<Connection> {
        let connection = self.slots.get_mut(number as usize)?.take()?;
        if self.by_ports.get(&connection.ports) == Some(&number) {
            self.by_ports.remove(&connection.ports);
        }
        self.free.push(number);
        Some(connection)
    }

    /// Every connection.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slots.iter().flatten()
    }

    /// Bytes that all connections hold for the host, and the memory for them.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let held = self.iter().map(Connection::held);
        held.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }
}
