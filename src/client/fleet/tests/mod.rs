//! The fleet against servers.
