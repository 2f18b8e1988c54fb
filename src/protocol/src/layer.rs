//! What the image of a layer says to those that mount it.

/// An xattr of a root directory that the layer's tar does not describe: the attributes of the root of the next layer
/// below count instead. overlayfs takes the root's attributes from its uppermost directory alone, so who mounts the
/// layers sees to that. Below `trusted.overlay.`, which overlayfs does not show to the container.
pub const IMPLIED_ROOT_XATTR: &str = "trusted.overlay.hull.implied";
