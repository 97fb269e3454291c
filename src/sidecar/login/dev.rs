//! Development login: any name is let in. There is no such value outside development on loopback.

use crate::{
    proto,
    sidecar::{config::Convenient, refusal::Refusal},
    store::Identity,
};

use super::Method;

const MAX_NAME: usize = 64;

/// The login method; its existence is the permission.
#[derive(Debug, Clone, Copy)]
pub(in crate::sidecar) struct DevLogin(());

impl DevLogin {
    pub(in crate::sidecar) fn new(_: Convenient) -> Self {
        Self(())
    }
}

impl Method for DevLogin {
    type Proof = proto::DevLogin;

    const NAME: &'static str = "dev";

    /// The account of that name.
    async fn prove(&self, login: proto::DevLogin) -> Result<Identity, Refusal> {
        let name = login.name;
        if !(1..=MAX_NAME).contains(&name.len()) || name.chars().any(char::is_control) {
            return Err(Refusal::Argument {
                field: "dev.name",
                allowed: "1 to 64 bytes without control characters",
            });
        }
        Ok(Identity {
            provider: Self::NAME.to_owned(),
            subject: name,
        })
    }
}
