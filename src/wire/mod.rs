//! The wire protocol `tickgate/1` between client and gateway: frames and close codes, bytes in and out. docs/PROTOCOL.md is its
//! description for people who write clients. Beside it, what clients sign.

mod close;
mod device_login;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod proof;
mod reader;

pub use close::{Advice, CloseCode};
pub use device_login::{DEVICE_LOGIN_LABEL, device_login_message};
pub use frame::{
    Frame, FrameError, Hello, MAX_DATAGRAM, MAX_HELLO, MAX_MESSAGE, MAX_TOKEN, MAX_WELCOME,
    VERSION, Welcome, encode_message,
};
pub use proof::{PROOF_LABEL, PROOF_MESSAGE_LEN, proof_message};
pub use reader::FrameReader;
