//! Stateless proof that an initiator receives what is sent along a path (PROTOCOL.md §4.6).

use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::{
    crypto::{Secret, hmac_sha256},
    entropy::Entropy,
    time::Instant,
};

/// Age at which the secret is replaced.
const ROTATE_AFTER: Duration = Duration::from_secs(120);

/// The secrets behind the cookies: the current one, and the one before.
#[derive(Debug, Default)]
pub(super) struct CookieJar {
    current: Option<(Instant, Secret)>,
    previous: Option<Secret>,
}

impl CookieJar {
    /// Returns the cookie for `path` and ephemeral key `e`.
    pub(super) fn cookie(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        path: &[u8],
        e: &[u8; 32],
    ) -> [u8; 32] {
        self.rotate(now, entropy);
        self.current
            .as_ref()
            .map_or([0; 32], |(_, secret)| *cookie(secret, path, e).as_bytes())
    }

    /// Returns whether `presented` was given out for `path` and `e` within the last two rotations.
    pub(super) fn verify(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        path: &[u8],
        e: &[u8; 32],
        presented: &[u8; 32],
    ) -> bool {
        self.rotate(now, entropy);
        let current = self.current.as_ref().map(|(_, secret)| secret);
        current
            .into_iter()
            .chain(&self.previous)
            .any(|secret| cookie(secret, path, e).as_bytes().ct_eq(presented).into())
    }

    /// Replaces what is too old, when somebody asks: an idle node needs no timer for this.
    fn rotate(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let age = self.current.as_ref().map(|(since, _)| now - *since);
        match age {
            Some(age) if age < ROTATE_AFTER => {}
            Some(age) if age < ROTATE_AFTER * 2 => {
                self.previous = self
                    .current
                    .replace((now, Secret::random(entropy)))
                    .map(|(_, secret)| secret);
            }
            _ => {
                self.current = Some((now, Secret::random(entropy)));
                self.previous = None;
            }
        }
    }
}

pub(super) fn cookie(secret: &Secret, path: &[u8], e: &[u8; 32]) -> Secret {
    hmac_sha256(secret.as_bytes(), &[path, e])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::Seeded;

    #[test]
    fn a_cookie_holds_for_its_path_and_key_until_its_secret_was_replaced_twice() {
        let mut entropy = Seeded::new(1);
        let mut jar = CookieJar::default();
        let at = |secs| Instant::START + Duration::from_secs(secs);
        let cookie = jar.cookie(at(0), &mut entropy, b"path", &[1; 32]);
        assert!(jar.verify(at(119), &mut entropy, b"path", &[1; 32], &cookie));
        assert!(!jar.verify(at(119), &mut entropy, b"other", &[1; 32], &cookie));
        assert!(!jar.verify(at(119), &mut entropy, b"path", &[2; 32], &cookie));
        assert!(jar.verify(at(121), &mut entropy, b"path", &[1; 32], &cookie));
        assert!(jar.verify(at(240), &mut entropy, b"path", &[1; 32], &cookie));
        assert!(!jar.verify(at(242), &mut entropy, b"path", &[1; 32], &cookie));
    }

    #[test]
    fn a_long_idle_node_forgets_both_secrets() {
        let mut entropy = Seeded::new(1);
        let mut jar = CookieJar::default();
        let at = |secs| Instant::START + Duration::from_secs(secs);
        let cookie = jar.cookie(at(0), &mut entropy, b"path", &[1; 32]);
        assert!(!jar.verify(at(240), &mut entropy, b"path", &[1; 32], &cookie));
    }
}
