//! From a registry into the store: several downloads at once, layers converted bottom first as they
//! come.
//!
//! ```text
//!  resolve -> config -> for each layer: download to partial/ (worker threads) -> convert (this thread) -> enter
//! ```

mod layers;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use layers::Pull;
pub(crate) use layers::{Watched, wait};

use crate::digest::Digest;
use crate::error::{Cause, Error};
use crate::manifest::{self, Config, Manifest, Platform};
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::registry::{self, Client, Fetched, Retry};
use crate::store::{BlobRow, Image, Store};

/// How to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOptions {
    /// Registries (`host` or `host:port`) that may be spoken to in plain HTTP, besides those on
    /// this machine.
    pub insecure_registries: Vec<String>,
    /// Downloads at once; Docker's default is 3.
    pub parallel_downloads: usize,
    /// How often one request may fail for a transient reason before the pull fails.
    pub max_attempts: u32,
    /// Pause between the first and the second attempt; doubled each time.
    pub retry_pause_ms: u64,
    /// How long a registry may send nothing. The length of a download is not limited.
    pub idle_timeout_ms: u64,
    /// The folder of Docker's config.json; `DOCKER_CONFIG` or `~/.docker` if `None`.
    pub docker_config: Option<PathBuf>,
    /// Which image of an index to take; this machine's if `None`. Images of other platforms can be kept and pushed.
    pub platform: Option<Platform>,
}

impl Default for PullOptions {
    fn default() -> PullOptions {
        PullOptions {
            insecure_registries: Vec::new(),
            parallel_downloads: 3,
            max_attempts: 5,
            retry_pause_ms: 500,
            idle_timeout_ms: 60_000,
            docker_config: None,
            platform: None,
        }
    }
}

/// The result of a pull.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// The digest of the manifest or index that the reference means now.
    pub digest: Digest,
    /// The reference was pulled before and still means the same image.
    pub up_to_date: bool,
    /// Number of layers that were fetched: 0 if all were present, perhaps from another image or an
    /// import.
    pub fetched_layers: usize,
}

impl Store {
    /// Fetches the image that `reference` means now, unless it is present, and gives it that name.
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> crate::Result<Pulled> {
        self.pull_image(reference, options, progress)
            .map_err(|source| Error::Pull {
                reference: reference.clone(),
                source: source.into(),
            })
    }

    /// Brings every tag of a repository; the tag of `reference` has no effect, and a digest is refused. What came before
    /// a failure stays.
    pub fn pull_all(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> crate::Result<Vec<Pulled>> {
        let tags = || -> Result<Vec<String>, Cause> {
            if reference.digest().is_some() {
                let name = reference.to_string();
                return Err(crate::store::Error::DigestAsTag { name }.into());
            }
            let cancelled = AtomicBool::new(false);
            let client = Client::connect(reference, options)?;
            let retry = Retry::new(options, None, progress, &cancelled);
            let tags = retry.run(|| client.reached(), || client.tags())?;
            match tags.is_empty() {
                false => Ok(tags),
                true => Err(registry::Error::NotFound {
                    host: reference.host().to_owned(),
                    name: reference.repository().to_owned(),
                }
                .into()),
            }
        };
        let tags = tags().map_err(|source| Error::Pull {
            reference: reference.clone(),
            source: source.into(),
        })?;
        let pull = |tag: String| self.pull(&reference.with_tag(&tag), options, progress);
        tags.into_iter().map(pull).collect()
    }

    fn pull_image(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Pulled, Cause> {
        let _session = self.session()?;
        let cancelled = AtomicBool::new(false);
        let retry = || Retry::new(options, None, progress, &cancelled);
        let client = Client::connect(reference, options)?;
        let native = Platform::native();
        let platform = options.platform.as_ref().unwrap_or(&native);
        let (top, bytes, manifest) = resolve(&client, reference, platform, &retry)?;
        let config = match self.known_config(&manifest.config.digest)? {
            Some(bytes) => bytes,
            None => {
                let fetch = || client.config(&manifest.config);
                retry().run(|| client.reached(), fetch)?
            }
        };
        let config = Config::parse_for(config, platform)?;
        config.check_layers(manifest.layers.len())?;
        progress.event(Event::Resolved {
            digest: top,
            layers: manifest.layers.len(),
        });
        let pull = Pull {
            store: self,
            client: &client,
            options,
            progress,
            layers: &manifest.layers,
            diff_ids: &config.diff_ids,
            chain_ids: config.chain_ids(),
            next: AtomicUsize::new(0),
            cancelled: &cancelled,
        };
        let (layers, fetched_layers) = pull.run()?;
        let mut names = vec![reference.at(top)];
        if reference.digest().is_none() {
            names.push(reference.clone());
        }
        let mut up_to_date = fetched_layers == 0;
        for name in &names {
            up_to_date = up_to_date && self.names_image(name, &config.id())?;
        }
        let image = self.put_image(&config, Some(&bytes), &layers, &names)?;
        let repository = reference.full_repository();
        let blobs: Vec<(Digest, BlobRow)> = config
            .diff_ids
            .iter()
            .zip(&manifest.layers)
            .map(|(diff_id, layer)| (*diff_id, BlobRow::of(layer, &repository)))
            .collect();
        self.note_blobs(&blobs);
        Ok(Pulled {
            image,
            digest: top,
            up_to_date,
            fetched_layers,
        })
    }

    /// The configuration of an image that is present.
    fn known_config(&self, id: &Digest) -> Result<Option<Vec<u8>>, Cause> {
        let bytes = self.config_bytes(id)?;
        Ok(bytes.filter(|bytes| Digest::of(bytes) == *id))
    }
}

/// Follows indexes to the manifest for a platform. Returns the digest of what the reference
/// named, and the manifest.
fn resolve<'a>(
    client: &Client,
    reference: &Reference,
    platform: &Platform,
    retry: &dyn Fn() -> Retry<'a>,
) -> Result<(Digest, Vec<u8>, Manifest), Cause> {
    let fetch = |which: &str, expected: Option<&Digest>| -> Result<Fetched, registry::Error> {
        retry().run(|| client.reached(), || client.manifest(which, expected))
    };
    let fetched = fetch(&reference.manifest(), reference.digest())?;
    let top = fetched.digest;
    let fetch = |entry: &manifest::Descriptor| -> Result<_, Cause> {
        Ok(Some(
            fetch(&entry.digest.to_string(), Some(&entry.digest))?.bytes,
        ))
    };
    let (bytes, manifest) = manifest::resolve(fetched.bytes, Some(platform), fetch)?;
    Ok((top, bytes, manifest))
}
