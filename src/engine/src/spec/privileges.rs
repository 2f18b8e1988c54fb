//! `--privileged`, and what Docker hides besides the document's own lists.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources, Mount};

/// The guest's own /dev in place of the container's, and nothing of the kernel's read-only.
pub(super) fn of_mounts(mounts: &mut [Mount]) {
    for mount in mounts {
        if mount.destination().as_os_str() == "/dev" {
            let options = ["nosuid", "strictatime"].map(str::to_owned).to_vec();
            mount
                .set_typ(Some("devtmpfs".into()))
                .set_source(Some("devtmpfs".into()))
                .set_options(Some(options));
        } else if mount.destination().starts_with("/sys") {
            let mut options = mount.options().clone().unwrap_or_default();
            options.retain(|option| option != "ro");
            mount.set_options(Some(options));
        }
    }
}

/// Every device.
pub(super) fn of_devices(resources: &mut LinuxResources) {
    let mut all = LinuxDeviceCgroup::default();
    all.set_allow(true).set_access(Some("rwm".into()));
    resources.set_devices(Some(vec![all]));
}

/// The host's counters of throttled processors, which tell of work in other containers (GHSA-6fw5-f8r9-fgfm). A guest
/// has none.
pub(super) fn thermal_throttle() -> Vec<String> {
    let folders = std::fs::read_dir("/sys/devices/system/cpu")
        .into_iter()
        .flatten();
    folders
        .flatten()
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect()
}
