//! The generators' clients.

pub(crate) mod echoes;
pub(crate) mod netcode;
pub(crate) mod quic;
