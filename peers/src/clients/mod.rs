//! The generators: clients by the thousand on one thread.

pub(crate) mod crowd;
pub(crate) mod echoes;
pub(crate) mod handshakes;
pub(crate) mod netcode;
