//! `commit`: an image of a container's image, its changes, and what it was asked to be.

use std::io::{self, Read};
use std::time::SystemTime;

use image::change::{self, ChangeError};
use image::{Image, NewImage, Platform, Progress, Reference};
use protocol::record::{ContainerConfig, Status};
use serde_json::{Map, Value, json};

use crate::asked::Asked;
use crate::copy::Transfer;
use crate::engine::Engine;
use crate::error::{Error, Subject};
use crate::events;
use crate::{images, signals};

/// How a container is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitOptions {
    /// The image's name; `None` leaves it without one.
    pub name: Option<Reference>,
    /// Who made it.
    pub author: Option<String>,
    /// A remark, for its history.
    pub comment: Option<String>,
    /// Dockerfile instructions for its configuration.
    pub changes: Vec<String>,
    /// Freezes the container's processes meanwhile.
    pub pause: bool,
}

impl Engine {
    /// Makes an image of a container, which may run. Nothing is stored unless all of its changes have come.
    pub fn commit(
        &self,
        reference: &str,
        options: CommitOptions,
        progress: &dyn Progress,
    ) -> Result<Image, Error> {
        let container = self.container(reference)?;
        let id = &container.config.id;
        let asked: Asked = serde_json::from_str(container.config.asked.get())?;
        let mut config = image_config(&container.config, &asked);
        change::apply(&mut config, &options.changes)?;
        let pauses = options.pause && container.state.status == Status::Running;
        if pauses {
            self.pause(id)?;
        }
        let stored = self.store_changes(&container.config, &asked, config, &options, progress);
        if pauses {
            // A container that ended meanwhile is not to be resumed.
            match self.unpause(id) {
                Err(Error::Refused { .. }) => {}
                other => other?,
            }
        }
        let image = stored?;
        let mut told = events::container(&container.config, "commit")
            .with("imageID", image.id.to_string())
            .with("comment", options.comment.unwrap_or_default());
        if let Some(name) = &options.name {
            told = told.with("imageRef", name.to_string());
        }
        self.tell(told);
        Ok(image)
    }

    fn store_changes(
        &self,
        container: &ContainerConfig,
        asked: &Asked,
        config: Value,
        options: &CommitOptions,
        progress: &dyn Progress,
    ) -> Result<Image, Error> {
        let store = self.images()?;
        let base = store
            .find(&container.image_id)
            .map_err(images::Error::from)?
            .ok_or_else(|| Error::not_found(Subject::Image, &container.image_id))?;
        let mut changes = Changes {
            transfer: Some(self.changes_as_layer(&container.id)?),
            failure: None,
        };
        let new = NewImage {
            base: Some(&base),
            layer: Some(&mut changes),
            config: Some(config),
            platform: Platform::native(),
            author: options.author.clone(),
            created: SystemTime::now(),
            created_by: asked.command.join(" "),
            comment: options.comment.clone(),
            names: options.name.iter().cloned().collect(),
        };
        let created = store.create(new, progress);
        match changes.failure {
            Some(failure) => Err(failure),
            None => Ok(created.map_err(images::Error::from)?),
        }
    }
}

/// The archive of a container's changes, which is at its end only if the machine says that it is whole.
struct Changes<'a> {
    transfer: Option<Transfer<'a>>,
    /// Why it is not.
    failure: Option<Error>,
}

impl Read for Changes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(transfer) = &self.transfer else {
            return Ok(0);
        };
        let len = match transfer.stream() {
            Some(stream) => rustix::io::retry_on_intr(|| rustix::io::read(stream, &mut *buffer))?,
            None => 0,
        };
        if len == 0
            && !buffer.is_empty()
            && let Some(Err(failure)) = self.transfer.take().map(Transfer::finish)
        {
            let error = io::Error::other(failure.to_string());
            self.failure = Some(failure);
            return Err(error);
        }
        Ok(len)
    }
}

/// What a container was asked to be, as the `config` object of an image.
fn image_config(container: &ContainerConfig, asked: &Asked) -> Value {
    let set = |names: &[String]| -> Map<String, Value> {
        names.iter().map(|name| (name.clone(), json!({}))).collect()
    };
    let mut config = json!({
        "Env": asked.env,
        "Cmd": asked.command,
        "Entrypoint": asked.entrypoint,
        "WorkingDir": asked.workdir,
        "User": asked.user,
        "Labels": container.labels,
        "Volumes": set(&asked.volumes),
        "ExposedPorts": set(&asked.exposed_ports),
        "StopSignal": asked.stop_signal.map(signals::name),
        "Healthcheck": asked.healthcheck,
        "Shell": asked.shell,
    });
    if let Value::Object(members) = &mut config {
        members.retain(|_, value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(members) => !members.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        });
    }
    config
}

impl From<ChangeError> for Error {
    fn from(error: ChangeError) -> Error {
        images::Error::Change(error).into()
    }
}

#[cfg(test)]
mod tests;
