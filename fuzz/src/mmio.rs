//! The transport by itself, with a device that believes nothing: what it is handed must be what the contract says.

use devices::virtio::mmio::registers::{TRANSPORT_FEATURES, VERSION_1};
use devices::virtio::{Activation, Device, DeviceId, StartError};
use virtio_queue::{Queue, QueueT};

use crate::guest::{self, Host, MEMORY};
use crate::input::Input;

const SIZES: [u16; 3] = [256, 64, 1];
const FEATURES: u64 = 0x00ff_00a5;

#[derive(Default)]
struct Contract {
    started: Option<Vec<Queue>>,
    config: [u8; 8],
}

/// Runs an input.
pub fn run(data: &[u8]) {
    struct Nobody;
    impl Host for Nobody {
        fn device(&mut self) -> Box<dyn Device> {
            Box::new(Contract::default())
        }
        fn settle(&mut self) {}
    }
    guest::drive(&mut Nobody, &mut Input::new(data));
}

impl Device for Contract {
    fn id(&self) -> DeviceId {
        DeviceId(42)
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset)
                .ok()
                .and_then(|at| at.checked_add(i));
            *byte = at.and_then(|at| self.config.get(at).copied()).unwrap_or(0);
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        assert!(data.len() <= 8);
        if offset == 0 {
            self.config[..data.len()].copy_from_slice(data);
        }
    }

    fn start(&mut self, activation: Activation) -> Result<(), StartError> {
        assert!(self.started.is_none(), "started twice");
        let Activation {
            features,
            queues,
            memory,
            ..
        } = activation;
        assert_eq!(
            features & !(FEATURES | TRANSPORT_FEATURES),
            0,
            "a feature that was not offered"
        );
        assert_ne!(features & VERSION_1, 0, "a legacy driver");
        assert_eq!(queues.len(), SIZES.len());
        for (started, max) in queues.iter().zip(SIZES) {
            let queue = &started.queue;
            if !queue.ready() {
                continue;
            }
            let size = queue.size();
            assert!(size.is_power_of_two() && size <= max);
            assert!(queue.is_valid(memory.as_ref()));
            let entries = u64::from(size);
            for (start, len, align) in [
                (queue.desc_table(), 16 * entries, 16),
                (queue.avail_ring(), 6 + 2 * entries, 2),
                (queue.used_ring(), 6 + 8 * entries, 4),
            ] {
                assert!(start.checked_add(len).is_some_and(|end| end <= MEMORY));
                assert!(start.is_multiple_of(align));
            }
        }
        self.started = Some(queues.into_iter().map(|started| started.queue).collect());
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        self.started.take().expect("stopped without a start")
    }
}
