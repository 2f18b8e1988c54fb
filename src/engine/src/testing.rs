//! What the tests share: a state root with containers.
