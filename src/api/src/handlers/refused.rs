//! What hull does not have, in words that Docker's clients cope with.

use crate::call::{Answer, Call};
use crate::error::Failure;

pub(crate) fn build(_: Call) -> Answer {
    Err(Failure::not_built(
        "building images: build elsewhere, and push or load the image; it",
    ))
}

pub(crate) fn websocket(_: Call) -> Answer {
    Err(Failure::not_built(
        "attaching by websocket: attach with Upgrade: tcp; it",
    ))
}

pub(crate) fn search(_: Call) -> Answer {
    Err(Failure::not_built("searching registries"))
}

pub(crate) fn distribution(_: Call) -> Answer {
    Err(Failure::not_built("looking at an image in its registry"))
}

/// `docker inspect` looks for a plugin, too.
pub(crate) fn plugin(call: Call) -> Answer {
    Err(Failure::new(
        404,
        format!("plugin {:?} not found", call.target),
    ))
}

pub(crate) fn plugins(_: Call) -> Answer {
    Err(Failure::new(501, "hull has no plugins"))
}

pub(crate) fn swarm(_: Call) -> Answer {
    Err(Failure::new(
        503,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
    ))
}
