//! Marks in the EROFS image of a layer, for the code that mounts it.

/// An xattr of a root directory that the layer's tar does not describe: the attributes of the root
/// of the next layer below count instead. overlayfs takes the root's attributes from its uppermost
/// directory alone, so the code that mounts the layers copies them there. The prefix
/// `trusted.overlay.` hides it from the container.
pub const IMPLIED_ROOT_XATTR: &str = "trusted.overlay.hull.implied";
