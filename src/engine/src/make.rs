//! From what is asked for to a container: its image, its mounts and its network are found, and its files made.

use crate::engine::Engine;
use crate::error::Error;
use crate::options::{Isolation, Options};
use crate::prepare::{self, ContainerInputs};
use crate::{NewContainer, id, images, time};

/// Why a container cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// Its image.
    #[error(transparent)]
    Image(#[from] images::Error),
    /// Its options.
    #[error(transparent)]
    Prepare(#[from] prepare::Error),
    /// Anything else.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl Engine {
    /// Makes the container that these options ask for, and returns its identifier. Its image is fetched where they say so.
    pub fn make(
        &self,
        options: &Options,
        progress: &dyn image::Progress,
    ) -> Result<String, MakeError> {
        self.sweep()?;
        let store = self.images()?;
        let image = images::resolve(
            &store,
            self.installation(),
            &options.image,
            options.pull,
            progress,
        )?;
        let lease = store.lease(&image).map_err(images::Error::from)?;
        let id = id::new_id();
        let mounts = self.resolve_mounts(options, &image)?;
        let pod = match &options.isolation {
            Isolation::Pod(pod) => Some(self.pod_sandbox(pod)?),
            _ => None,
        };
        let networks = match &pod {
            Some(pod) => self.networks_of(pod)?,
            None => self.chosen_networks(options)?,
        };
        let inputs = ContainerInputs {
            networks: &networks,
            mounts: &mounts,
            options,
            image: &image,
            id: &id,
            name: options.name.as_deref().unwrap_or_default(),
            created_ns: time::now_ns(),
            root: self.root(),
            installation: self.installation(),
        };
        let (sandbox, config) = match &pod {
            Some(pod) => (None, prepare::prepare_in_pod(&inputs, pod)?),
            None => {
                let (sandbox, config) = prepare::prepare(&inputs)?;
                (Some(sandbox), config)
            }
        };
        self.create(NewContainer {
            config,
            sandbox,
            lease: Some(lease),
        })?;
        Ok(id)
    }
}
