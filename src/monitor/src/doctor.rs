//! What this host lacks of what monitors need.

use serde::Serialize;

use crate::chain;

#[derive(Serialize)]
struct Report {
    /// Why /dev/kvm cannot be used; `null` if it can.
    kvm: Option<String>,
    /// /dev/kvm is not there at all.
    kvm_is_absent: bool,
    cgroup: Cgroup,
    /// Where the cgroup v2 hierarchy is mounted.
    cgroup2_mount: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Cgroup {
    /// VMs get a cgroup, which lacks these limits.
    Missing(Vec<&'static str>),
    /// VMs get none.
    Refused(String),
}

/// The report as JSON.
pub(crate) fn report() -> String {
    let kvm = crate::vmm::open_kvm().err();
    let report = Report {
        kvm_is_absent: matches!(kvm, Some(crate::vmm::Error::NoKvm)),
        kvm: kvm.map(|error| chain(&error)),
        cgroup: match crate::cgroup::try_out() {
            Ok(missing) => Cgroup::Missing(missing),
            Err(error) => Cgroup::Refused(error.to_string()),
        },
        cgroup2_mount: sys::cgroup2::mount_point().map(|path| path.display().to_string()),
    };
    serde_json::to_string(&report).expect("plain data can be written")
}
