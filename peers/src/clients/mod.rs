//! Generators of datagrams.

pub(crate) mod netcode;
