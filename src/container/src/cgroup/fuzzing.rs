//! For `fuzz/` only.

use crate::error::Error;
use crate::spec::Resources;

/// A document's limits as files, none of which lies outside of the cgroup, and as a device filter.
pub(crate) fn limits(resources: &Resources) -> Result<(), Error> {
    for (file, _) in super::limits::files(resources, None)? {
        assert!(!file.contains('/'), "{file} lies elsewhere");
    }
    super::devices::program(&resources.devices).map(drop)
}
