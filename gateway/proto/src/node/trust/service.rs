//! The authority's side: what its askers want, and what it answers.

use super::{ANSWER_WITHIN, MANAGE_LEN_MAX, UNANSWERED_MAX};
use crate::{
    channel::ChannelId,
    identity::Identifier,
    node::{Node, Output, Use, Wire},
    time::Now,
    trust::{PRESENTATION_LEN_MAX, Rights, TrustFrame},
};

/// A request of a channel to this authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityRequest {
    /// The channel it came in; for [`Node::handle_authority_answer`].
    pub channel: ChannelId,
    /// Who asks.
    pub peer: Identifier,
    /// What its credential, if it has one that counts, lets it do at the authority.
    pub rights: Rights,
    /// The asker's number.
    pub request: u32,
    /// What is asked. Answer each: 16 of one channel wait at most, for 30 s each.
    pub kind: AuthorityRequestKind,
}

/// What an authority is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityRequestKind {
    /// To enrol: the signed request.
    Enrol(Vec<u8>),
    /// For a credential in the place of one that ends.
    Renew,
    /// To manage members and tickets: JSON text.
    Manage(String),
    /// What time it is: the nonce.
    Time([u8; 16]),
}

/// The authority's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityAnswer {
    /// A presentation.
    Issued(Vec<u8>),
    /// No.
    Denied,
    /// JSON text.
    Managed(String),
    /// A signed time: history and statement.
    Time(Vec<u8>),
}

impl Node {
    /// Takes the answer of this node's authority to a request. What is longer than a frame may be is denied.
    pub fn handle_authority_answer(
        &mut self,
        now: Now,
        channel: ChannelId,
        request: u32,
        answer: &AuthorityAnswer,
        wire: &mut dyn Wire,
    ) {
        let used_for = self.by_channel.get(&channel).map(|entry| entry.used_for);
        let told_time = matches!(answer, AuthorityAnswer::Time(_));
        if used_for.is_none() || used_for != Some(Use::Asker) && !told_time {
            return;
        }
        if let Some(known) = self.known.get_mut(&channel) {
            known.dealings.requests.pop_front();
        }
        let frame = match answer {
            AuthorityAnswer::Issued(presentation) if presentation.len() <= PRESENTATION_LEN_MAX => {
                TrustFrame::Issued {
                    request,
                    presentation,
                }
            }
            AuthorityAnswer::Managed(text) if text.len() <= MANAGE_LEN_MAX => {
                TrustFrame::Managed { request, text }
            }
            AuthorityAnswer::Time(presentation) if presentation.len() <= MANAGE_LEN_MAX => {
                TrustFrame::SignedTime { presentation }
            }
            // A time that was refused: the asker finds out by waiting.
            AuthorityAnswer::Time(_) => return,
            AuthorityAnswer::Issued(_) | AuthorityAnswer::Managed(_) | AuthorityAnswer::Denied => {
                TrustFrame::Denied { request }
            }
        };
        let mut frames = Vec::new();
        frame.put(&mut frames);
        self.send_frames(now, channel, &frames, wire);
    }

    /// Hands a request on to the authority; false if nobody here answers it, or too many wait.
    pub(super) fn authority_request(
        &mut self,
        now: Now,
        channel: ChannelId,
        used_for: Use,
        request: u32,
        kind: AuthorityRequestKind,
    ) -> bool {
        // What time it is everybody may ask, be it that this node came to them: relays do.
        if used_for != Use::Asker && !matches!(kind, AuthorityRequestKind::Time(_)) {
            return false;
        }
        let Some(known) = self.known.get_mut(&channel) else {
            return false;
        };
        let requests = &mut known.dealings.requests;
        // The asker has given up on those.
        while requests
            .front()
            .is_some_and(|asked| now.instant - *asked >= ANSWER_WITHIN)
        {
            requests.pop_front();
        }
        if requests.len() >= UNANSWERED_MAX {
            return false;
        }
        requests.push_back(now.instant);
        let peer = known.peer;
        let credential = known.credential.clone();
        let rights = credential
            .filter(|credential| self.standing(now, credential).counts())
            .map(|credential| credential.rights)
            .unwrap_or_default();
        self.outputs
            .push_back(Output::Authority(Box::new(AuthorityRequest {
                channel,
                peer,
                rights,
                request,
                kind,
            })));
        true
    }
}
