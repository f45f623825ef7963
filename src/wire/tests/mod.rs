//! What holds for every form of the wire.

mod names;
