//! Connections of containers to sockets of the host's.
//!
//! ```text
//! agent: Connected --> warden: Connect --> Connected --> hull-vmm: the socket at a port, agent: Forward to that port
//!                                                   '--> agent: Forward to nowhere, where it cannot be reached
//! ```

use protocol::agent::Request;

use super::agent::Awaited;
use super::{Action, Session};
use crate::link::ToWarden;

/// Connections that are on their way at once: the agent has fewer.
const MAX_CONNECTING: usize = 128;

impl Session {
    /// A container has connected to a socket.
    pub(super) fn connected(&mut self, socket: String, connection: u64) {
        let has_room = self.connecting.len() < MAX_CONNECTING;
        // What is no container's is not the warden's to look for: the guest may say anything here.
        if !has_room || !self.has_socket(&socket) || !self.connecting.insert(connection) {
            return self.forward(connection, None);
        }
        self.tell(ToWarden::Connect { socket, connection });
    }

    /// The host's socket has been reached for a connection, or cannot be.
    pub(crate) fn reached(&mut self, connection: u64, is_reached: bool) {
        if !self.connecting.remove(&connection) {
            return;
        }
        let port = is_reached.then(|| self.new_port());
        if let Some(port) = port {
            self.actions.push(Action::Join { connection, port });
        }
        self.forward(connection, port);
    }

    fn forward(&mut self, connection: u64, port: Option<u32>) {
        // A connection that the agent has given up meanwhile takes nobody anything.
        self.ask_agent(Request::Forward { connection, port }, Awaited::Nothing);
    }

    fn has_socket(&self, name: &str) -> bool {
        let mounts = self.containers.values().map(|it| &it.config.run.mounts);
        self.setting.writes.are_of_a_vm()
            && mounts
                .flatten()
                .any(|mount| mount.socket.is_some() && mount.share == name)
    }
}
