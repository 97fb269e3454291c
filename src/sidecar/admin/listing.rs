//! Pages of sessions, newest first.

use crate::{
    id::SessionId,
    proto,
    store::{Found, Standing},
};

use super::{super::sessions::session_info, AdminApi, Refusal, Sessions, player_id};

/// How many sessions a page has unless asked otherwise, and at most.
const DEFAULT_PAGE: usize = 100;
const LONGEST_PAGE: usize = 1_000;

/// How many sessions the store is asked for at once.
const CHUNK: usize = 1_000;

/// How many sessions one page may cost to look at: where most have ended a page may be short, and its token goes on from there.
const LOOKED_AT: usize = 10_000;

impl AdminApi {
    /// One page of sessions.
    pub(super) async fn page(
        &self,
        asked: proto::ListSessionsRequest,
    ) -> Result<proto::ListSessionsResponse, Refusal> {
        let proto::ListSessionsRequest {
            player_id: player,
            include_ended,
            page_size,
            page_token,
        } = asked;
        let player = match &*player {
            "" => None,
            text => Some(player_id(text)?),
        };
        let size = page_length(page_size)?;
        let Sessions {
            store,
            clock,
            lives,
            ..
        } = &*self.sessions;
        let (now, idle) = (clock.wall(), lives.idle);
        let mut before = place(&page_token)?;
        let mut page: Vec<Found> = Vec::new();
        let mut looked_at = 0;
        let more = loop {
            let found = store.sessions(player, before, CHUNK).await?;
            let (chunk, is_last) = (found.len(), found.len() < CHUNK);
            let wanted =
                |found: &Found| include_ended || found.standing(now, idle) == Standing::Live;
            let last = found.last().map(|found| found.session.id);
            page.extend(found.into_iter().filter(wanted).take(size + 1 - page.len()));
            looked_at += chunk;
            if page.len() > size {
                // There is at least one more: the page ends before it.
                page.truncate(size);
                break page.last().map(|found| found.session.id);
            }
            if is_last {
                break None;
            }
            before = last;
            if looked_at >= LOOKED_AT {
                break before;
            }
        };
        let sessions = page.iter().map(|found| {
            let gateways = self.registry.seats_of(found.session.id);
            session_info(found, now, idle, &gateways)
        });
        Ok(proto::ListSessionsResponse {
            sessions: sessions.collect(),
            next_page_token: more.map(|id| id.to_string()).unwrap_or_default(),
        })
    }
}

fn page_length(asked: u32) -> Result<usize, Refusal> {
    match usize::try_from(asked) {
        Ok(0) => Ok(DEFAULT_PAGE),
        Ok(size @ 1..=LONGEST_PAGE) => Ok(size),
        _ => Err(Refusal::Argument {
            field: "page_size",
            allowed: "0 for the default (100), or 1 to 1,000",
        }),
    }
}

/// Where a page starts: below the id that its token is.
fn place(token: &str) -> Result<Option<SessionId>, Refusal> {
    match token {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|source| Refusal::Id {
            field: "page_token",
            source,
        }),
    }
}
