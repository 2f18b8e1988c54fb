//! What of the host's the container has: directories, files, volumes.

use clap::Args;
use engine::options::{Mount, Options, VolumesFrom};

use ::values::mounts as values;

/// Mounts.
#[derive(Debug, Args)]
pub(super) struct MountArgs {
    /// Mount a volume or a directory of this host; without a source, a volume without a name. Options: ro, rw, nocopy; z and Z
    /// are accepted without effect (hull labels nothing for SELinux)
    #[arg(short, long, value_name = "[SOURCE:]DIR[:OPTIONS]", value_parser = values::volume)]
    volume: Vec<Mount>,
    /// Mount a directory or a file of this host, a volume or a tmpfs, as in type=bind,source=/srv,target=/data,readonly
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = values::mount)]
    mount: Vec<Mount>,
    /// Mount what another container has mounted
    #[arg(long, value_name = "CONTAINER[:ro]", value_parser = values::volumes_from)]
    volumes_from: Vec<VolumesFrom>,
    /// Driver of volumes: local is the only one
    #[arg(long, value_name = "DRIVER", value_parser = values::driver, hide = true)]
    volume_driver: Option<()>,
}

impl MountArgs {
    pub(super) fn set(self, options: &mut Options) {
        options.mounts = self.volume;
        options.mounts.extend(self.mount);
        options.volumes_from = self.volumes_from;
    }
}
