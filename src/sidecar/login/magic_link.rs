//! Login by a link that is mailed.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::{
    clock::Timestamp,
    proto,
    sidecar::{mail::Room, refusal::Refusal},
    store::{Identity, OneTimePurpose},
};

use super::{
    Method,
    address::EmailAddress,
    verification::{Verifications, address_of},
};

/// The login method.
pub(in crate::sidecar) struct MagicLink(pub(in crate::sidecar) Arc<Verifications>);

impl MagicLink {
    /// Mails a link; until when it is good.
    pub(in crate::sidecar) async fn request(
        &self,
        to: EmailAddress,
        room: Room,
    ) -> Result<Timestamp, Refusal> {
        let payload = to.as_str().as_bytes().to_vec();
        let purpose = OneTimePurpose::MagicLink;
        self.0.mail(purpose, to, payload, None, room).await
    }
}

impl Method for MagicLink {
    type Proof = proto::MagicLinkLogin;

    const NAME: &'static str = "magic_link";

    async fn prove(&self, login: proto::MagicLinkLogin) -> Result<Identity, Refusal> {
        let token = Zeroizing::new(login.token);
        let payload = self.0.spend(&token, OneTimePurpose::MagicLink).await?;
        Ok(address_of(payload.bytes())?.identity())
    }
}
