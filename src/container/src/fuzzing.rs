//! For `fuzz/` only: documents and images' files, straight into the parsers that the crate keeps to itself.

use std::path::Path;

use crate::inside::Root;
use crate::options::Options;
use crate::plan::Plan;
use crate::user::{self, Wanted};
use crate::{EtcFiles, Network, PidNamespace, Request, Spec, Stdio, cgroup};

/// An OCI document, for a container whose root is `rootfs`: everything that is decided before the system is touched.
pub fn document(json: &[u8], rootfs: &Path) {
    let Ok(spec) = Spec::from_json(json) else {
        return;
    };
    let _ = cgroup::fuzzing::limits(&spec.linux.resources);
    for mount in &spec.mounts {
        let _ = Options::parse(&mount.options);
    }
    let request = Request {
        spec,
        rootfs: rootfs.to_owned(),
        user: None,
        seccomp: None,
        init: false,
        stdio: Stdio::Pipes {
            stdin: None,
            stdout: None,
            stderr: None,
        },
        etc: EtcFiles::default(),
        groups: vec!["users".into()],
        network: Network::Loopback,
        pid: PidNamespace::Own,
        volumes: vec!["/volume".into()],
        shares: Vec::new(),
        own_machine: false,
        cgroup: "/nowhere".into(),
        run_dir: "/nowhere".into(),
    };
    match Plan::new(request) {
        Ok(plan) => _ = plan.outside_uid(),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// `USER[:GROUP]` in the image at `rootfs`, with hostile /etc/passwd and /etc/group.
pub fn user(wanted: &str, rootfs: &Path) {
    let Ok(root) = Root::open(rootfs) else {
        return;
    };
    let document = crate::spec::User::default();
    for user in [Some(wanted), None] {
        let groups = [wanted.to_owned()];
        let wanted = Wanted {
            user,
            document: &document,
            groups: &groups,
        };
        if let Ok(identity) = user::find(&root, &wanted) {
            assert!(identity.groups.contains(&identity.gid));
            assert!(identity.groups.is_sorted());
            assert!(identity.uid != u32::MAX && identity.gid != u32::MAX);
        }
    }
}
