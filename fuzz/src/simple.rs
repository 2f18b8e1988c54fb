//! The devices that have no more than queues: entropy and console.

use devices::output::Output;
use devices::virtio::Device;
use devices::virtio::console::Console;
use devices::virtio::rng::Rng;

use crate::guest::{self, Host};
use crate::input::Input;

/// Runs an input against the entropy device.
pub fn rng(data: &[u8]) {
    struct Entropy;
    impl Host for Entropy {
        fn device(&mut self) -> Box<dyn Device> {
            Box::new(Rng::new())
        }
    }
    guest::drive(&mut Entropy, &mut Input::new(data));
}

/// Runs an input against the console, whose reader may be slow or gone.
pub fn console(data: &[u8]) {
    struct Reader {
        output: Output,
        pipe: std::os::fd::OwnedFd,
    }
    impl Host for Reader {
        fn device(&mut self) -> Box<dyn Device> {
            Box::new(Console::new(self.output.clone()))
        }
        fn act(&mut self, input: &mut Input<'_>) {
            let mut bytes = vec![0; input.u16().into()];
            let _ = rustix::io::read(&self.pipe, &mut bytes[..]);
        }
    }
    let (pipe, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("a pipe");
    let output = Output::new(Some(write)).expect("a pipe");
    guest::drive(&mut Reader { output, pipe }, &mut Input::new(data));
}
