//! The network device, on one end of a pair of datagram sockets: packets keep their borders, as on a tap.

use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;

use devices::virtio::Device;
use devices::virtio::net::{Net, NetConfig};

use crate::guest::{self, Host, Request};
use crate::input::Input;

struct Wire {
    ours: UnixDatagram,
    theirs: UnixDatagram,
    mtu: u16,
}

/// Runs an input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (theirs, ours) = UnixDatagram::pair().expect("two sockets");
    for end in [&theirs, &ours] {
        end.set_nonblocking(true).expect("a socket");
    }
    let mut wire = Wire {
        ours,
        theirs,
        mtu: [68, 1500, 9000, 65535][usize::from(input.u8()) & 3],
    };
    guest::drive(&mut wire, &mut input);
}

impl Host for Wire {
    fn device(&mut self) -> Box<dyn Device> {
        Box::new(
            Net::new(NetConfig {
                descriptor: Some(self.theirs.try_clone().expect("a descriptor").into()),
                wire: devices::virtio::net::Wire::Plain,
                mac: [2, 0, 0, 0, 0, 1],
                mtu: self.mtu,
            })
            .expect("a legal device"),
        )
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let ours = &self.ours;
        let mut packet = vec![0; 70000];
        match input.u8() % 5 {
            0 => while ours.recv(&mut packet).is_ok() {},
            1 => {
                let len = usize::from(input.u16());
                // What the socket has no room for is lost, as on a wire.
                let _ = ours.send(&packet[..len]);
            }
            2 => {
                let len = usize::from(input.u16()) % 2000;
                for _ in 0..input.u8() {
                    let _ = ours.send(&packet[..len]);
                }
            }
            3 => {
                let _ = ours.send(input.short());
            }
            _ => {
                let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both];
                let _ = ours.shutdown(how[usize::from(input.u8()) % 3]);
            }
        }
    }

    fn request(&mut self, input: &mut Input<'_>) -> Request {
        let mut readable = vec![vec![0; 12]];
        for _ in 0..input.u8() % 4 {
            readable.push(match input.u8() % 2 {
                0 => input.short().to_vec(),
                _ => vec![7; input.u16().into()],
            });
        }
        Request {
            queue: 1,
            readable,
            writable: Vec::new(),
        }
    }
}
