//! The wire protocol `tickgate/1` between client and gateway: frames and close codes, bytes in and out. docs/PROTOCOL.md is its
//! description for people who write clients.

mod close;
// mod frame;

pub use close::{Advice, CloseCode};
// pub use frame::*;
