//! For `fuzz/` only: documents and images' files, straight into the parsers that the crate keeps to itself.

use std::path::Path;

use crate::inside::Root;
use crate::options::Options;
use crate::plan::Plan;
use crate::{EtcFiles, Request, Spec, Stdio, cgroup, user};

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
        interface: None,
        cgroup: "/nowhere".into(),
        run_dir: "/nowhere".into(),
    };
    match Plan::new(request) {
        Ok(plan) => _ = plan.outside_uid(),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// `USER[:GROUP]` in the image at `rootfs`, whose /etc/passwd and /etc/group are a stranger's.
pub fn user(wanted: &str, rootfs: &Path) {
    let Ok(root) = Root::open(rootfs) else {
        return;
    };
    if let Ok(identity) = user::by_name(&root, wanted, &[7]) {
        assert!(identity.groups.contains(&identity.gid));
        assert!(identity.groups.is_sorted());
    }
    let _ = user::by_number(&root, 7, 7, &[]);
}
