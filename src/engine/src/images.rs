//! The image that `hull run` means: from the store, from the registry, or the built-in demo.

use std::path::Path;

use image::store::{
    DeleteError, DeleteOptions, Deleted, Deletion, ImageUser, LabelFilter, PruneOptions,
};
use image::{Image, PullOptions, Reference, Store};

use crate::engine::Engine;
use crate::events::Told;
use crate::id;
use crate::install::{self, Installation};
use crate::list::ListOptions;
use crate::options::Pull;

/// The name of the demo image, which is imported from the installation when it is first wanted.
const DEMO: &str = "demo";

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a valid name.
    #[error("{name:?} is not an image's name")]
    Name {
        /// What the user wrote.
        name: String,
        /// Why.
        #[source]
        source: image::reference::Error,
    },
    /// It is not here and is not to be fetched.
    #[error("no image {0} here, and --pull never forbids to fetch it")]
    Absent(String),
    /// The store, a pull or an import failed.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] image::store::Error),
    /// The image is for other machines.
    #[error(
        "image {name} is for {platform}: this machine runs {}",
        image::Platform::native()
    )]
    Foreign {
        /// As the user wrote it.
        name: String,
        /// What it is for.
        platform: image::Platform,
    },
    /// The demo image is not installed.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// An image cannot be removed.
    #[error(transparent)]
    Delete(#[from] DeleteError),
    /// An instruction of `--change` cannot be applied.
    #[error(transparent)]
    Change(#[from] image::change::ChangeError),
    /// The demo archive has no image.
    #[error("the demo image's archive is empty")]
    EmptyDemo,
}

impl Error {
    /// What a person can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Image(error) => error.help(),
            Error::Store(error) => error.help(),
            Error::Delete(error) => error.help(),
            Error::Absent(name) => Some(format!("fetch it with `hull pull {name}`")),
            Error::Foreign { name, .. } => Some(format!(
                "`hull pull {name}` fetches the variant for this machine, if there is one"
            )),
            Error::Name { .. } | Error::Install(_) | Error::Change(_) | Error::EmptyDemo => None,
        }
    }
}

/// Opens the image store of a state root.
pub fn open_store(root: &Path) -> Result<Store, Error> {
    Ok(Store::open(&root.join("images"))?)
}

/// The image of this name, fetched where `pull` says so. One that this machine cannot run is refused.
pub fn resolve(
    store: &Store,
    installation: &Installation,
    name: &str,
    pull: Pull,
    progress: &dyn image::Progress,
) -> Result<Image, Error> {
    let image = find_or_fetch(store, installation, name, pull, progress)?;
    let platform = image.platform();
    match platform.is_native() {
        true => Ok(image),
        false => Err(Error::Foreign {
            name: name.to_owned(),
            platform,
        }),
    }
}

fn find_or_fetch(
    store: &Store,
    installation: &Installation,
    name: &str,
    pull: Pull,
    progress: &dyn image::Progress,
) -> Result<Image, Error> {
    let parse = || {
        name.parse::<Reference>().map_err(|source| Error::Name {
            name: name.to_owned(),
            source,
        })
    };
    if pull != Pull::Always
        && let Some(image) = store.find(name)?
    {
        return Ok(image);
    }
    let reference = parse()?;
    let demo: Reference = DEMO.parse().map_err(|source| Error::Name {
        name: DEMO.into(),
        source,
    })?;
    if reference == demo {
        // Never fetched: no registry has a repository of that name that is ours.
        let archive = installation.demo()?;
        let images = store.import(image::Source::Path(&archive), Some(&demo), progress)?;
        return images.into_iter().next().ok_or(Error::EmptyDemo);
    }
    if pull == Pull::Never {
        return Err(Error::Absent(name.to_owned()));
    }
    Ok(store
        .pull(&reference, &PullOptions::default(), progress)?
        .image)
}

impl Engine {
    /// Removes an image or one of its names ([`Store::delete`]).
    pub fn remove_image(&self, text: &str, force: bool) -> Result<Deleted, crate::Error> {
        let store = self.images()?;
        let options = DeleteOptions {
            force,
            users: &|| Ok(self.image_users()?),
        };
        let deleted = store.delete(text, &options).map_err(Error::from)?;
        for deletion in &deleted.deletions {
            let (action, name) = match deletion {
                Deletion::Untagged(name) => ("untag", name.clone()),
                Deletion::Deleted(id) => ("delete", id.to_string()),
            };
            self.tell(Told::new("image", action, &name).with("name", &name));
        }
        Ok(deleted)
    }

    /// Removes images that no container uses: all of them, or only those without a tag; built until this time, in seconds
    /// since 1970; with labels that match.
    pub fn prune_images(
        &self,
        all: bool,
        until_s: Option<i64>,
        labels: Vec<LabelFilter>,
    ) -> Result<Deleted, crate::Error> {
        let options = PruneOptions {
            all,
            until_s,
            labels,
            users: &|| Ok(self.image_users()?),
        };
        Ok(self.images()?.prune(&options).map_err(Error::from)?)
    }

    /// All containers, as users of their images.
    fn image_users(&self) -> Result<Vec<ImageUser>, crate::Error> {
        let options = ListOptions {
            all: true,
            ..ListOptions::default()
        };
        let users = self.list(&options)?.into_iter().filter_map(|one| {
            Some(ImageUser {
                image: one.summary.image_id.parse().ok()?,
                container: id::short(&one.summary.id).to_owned(),
                running: one.state.status.is_alive(),
            })
        });
        Ok(users.collect())
    }
}
