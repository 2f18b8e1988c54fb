//! What the store promises whatever happens: tests of a whole store in a folder.

use super::*;
