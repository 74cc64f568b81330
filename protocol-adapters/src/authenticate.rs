//! Who a client is: user name and password against the device table, or anonymous where the site allows it.

use std::{fmt, sync::Arc};

use aws_lc_rs::hmac;
use fieldgate_proto::entropy::Entropy;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{
    device::{Device, DeviceTable},
    password::PasswordHash,
    scram::{self, Dialog, Scram},
    topic::TopicFilter,
};

/// Decides who a client is.
pub trait Authenticate {
    /// Decides at once, or says that the answer follows.
    fn authenticate(&mut self, credentials: &Credentials<'_>) -> Authentication;

    /// Begins a conversation by an authentication method of MQTT 5.0 (§4.12); `None` if the method is not known.
    fn dialog(&mut self, method: &str, entropy: &mut dyn Entropy) -> Option<Box<dyn Dialog>> {
        let _ = (method, entropy);
        None
    }
}

/// What a client says about itself. `Debug` does not show the password.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The client identifier it chose; `None` if it left the choice to the gateway.
    pub client_id: Option<&'a str>,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "…"))
            .finish()
    }
}

/// The answer of [`Authenticate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// The client is this device.
    Accepted(Arc<Device>),
    /// The client is turned away.
    Denied(Denial),
    /// The answer takes longer and reaches the session later; until then the session takes no further packet.
    Pending,
}

/// Why a client is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// User name or password are wrong. Which of them is not said.
    #[error("the user name or password is wrong")]
    BadCredentials,
    /// The client may not connect: it gave no credentials, or the name of a device that has some.
    #[error("the client may not connect without credentials")]
    NotAuthorized,
    /// The gateway has too many checks to do at the moment.
    #[error("too many password checks are waiting")]
    Busy,
}

impl Denial {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::BadCredentials => "compare the device's credentials with the device table",
            Self::NotAuthorized => "give the device credentials, or allow anonymous clients",
            Self::Busy => "give devices generated passwords, which are cheap to check",
        }
    }
}

/// What becomes of a client without user name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// It is turned away.
    Refused,
    /// It is taken as a device with its client identifier as name; it may publish what these filters stand for.
    /// The name of a device in the table is never given away.
    Allowed {
        /// What it may publish.
        topics: Arc<[TopicFilter]>,
    },
}

/// Checks credentials against a [`DeviceTable`].
///
/// One per thread. A pair of user name and password that was right once is remembered as a MAC under a key that lives as
/// long as the process, so that thousands of devices coming back cost a microsecond each. An unknown user name costs what
/// some known one costs (always the same one), so the time tells nothing.
///
/// A check of more than [`ITERATIONS_INLINE_MAX`] iterations would stall the thread: it is answered by
/// [`Authentication::Pending`] and handed out by [`take_check`](Self::take_check).
///
/// ```text
///  authenticate ─▶ Pending ─▶ take_check ─▶ (another thread) PasswordCheck::run ─▶ handle_checked ─▶ Accepted, Denied
/// ```
pub struct Authenticator {
    table: Arc<DeviceTable>,
    anonymous: Anonymous,
    key: hmac::Key,
    /// One place per entry of the table: the MAC of the pair that was right.
    verified: Vec<Option<[u8; MAC_LEN]>>,
    check: Option<PasswordCheck>,
}

impl Authenticator {
    /// Makes an authenticator that remembers verified pairs under `key`: random, the same for the whole process, never stored.
    #[must_use]
    pub fn new(table: Arc<DeviceTable>, anonymous: Anonymous, key: &[u8; 32]) -> Self {
        let verified = vec![None; table.len()];
        Self {
            table,
            anonymous,
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            verified,
            check: None,
        }
    }

    /// Changes to another table; remembers pairs whose user name and hash are still the same.
    ///
    /// Checks that are under way belong to the old table and will be denied.
    pub fn replace(&mut self, table: Arc<DeviceTable>, anonymous: Anonymous) {
        let mut verified = vec![None; table.len()];
        for (username, index) in table.usernames() {
            if let Some(old) = self.table.index_of(username)
                && table.entry(index).0 == self.table.entry(old).0
                && let (Some(place), Some(known)) = (verified.get_mut(index), self.verified.get(old))
            {
                *place = *known;
            }
        }
        (self.table, self.anonymous, self.verified, self.check) = (table, anonymous, verified, None);
    }

    /// Returns the check that the last [`authenticate`](Authenticate::authenticate) answered with `Pending`.
    ///
    /// Take it after the call into the session. If no worker can take it, answer the session with [`Denial::Busy`].
    pub const fn take_check(&mut self) -> Option<PasswordCheck> {
        self.check.take()
    }

    /// Takes the result of a check that ran elsewhere and says who the client is.
    pub fn handle_checked(&mut self, checked: &CheckedPassword) -> Authentication {
        let Some(index) = checked.index.filter(|_| checked.correct) else {
            return Authentication::Denied(Denial::BadCredentials);
        };
        if !Arc::ptr_eq(&checked.table, &self.table) {
            return Authentication::Denied(Denial::Busy);
        }
        self.remember(index, checked.mac);
        Authentication::Accepted(Arc::clone(self.table.entry(index).1))
    }

    fn remember(&mut self, index: usize, mac: [u8; MAC_LEN]) {
        if let Some(place) = self.verified.get_mut(index) {
            *place = Some(mac);
        }
    }

    fn anonymous(&self, client_id: Option<&str>) -> Authentication {
        let Anonymous::Allowed { topics } = &self.anonymous else {
            return Authentication::Denied(Denial::NotAuthorized);
        };
        let name = client_id.unwrap_or(UNNAMED);
        if self.table.contains_name(name) {
            return Authentication::Denied(Denial::NotAuthorized);
        }
        Device::new(name, Arc::clone(topics))
            .map_or(Authentication::Denied(Denial::NotAuthorized), |device| {
                Authentication::Accepted(Arc::new(device))
            })
    }

    fn login(&mut self, username: &str, password: &[u8]) -> Authentication {
        let known = self.table.index_of(username);
        let Some(index) = known.or_else(|| self.stand_in(username)) else {
            return Authentication::Denied(Denial::BadCredentials);
        };
        let mac = self.mac(username, password);
        let remembered = self.verified.get(index).copied().flatten();
        // Computed for an unknown user as well; its MAC covers the user name, so it never equals the stand-in's.
        let repeated: bool = remembered.unwrap_or_default().ct_eq(&mac).into();
        if known.is_some() && remembered.is_some() && repeated {
            return Authentication::Accepted(Arc::clone(self.table.entry(index).1));
        }
        let (hash, device) = self.table.entry(index);
        if hash.iterations() > ITERATIONS_INLINE_MAX {
            self.check = Some(PasswordCheck {
                table: Arc::clone(&self.table),
                index: known,
                hash: hash.clone(),
                password: Zeroizing::new(password.to_vec()),
                mac,
            });
            return Authentication::Pending;
        }
        let device = Arc::clone(device);
        let correct = hash.verify(password);
        if known.is_none() || !correct {
            return Authentication::Denied(Denial::BadCredentials);
        }
        self.remember(index, mac);
        Authentication::Accepted(device)
    }

    /// Returns the entry whose cost an unknown user name has; always the same one for the same name.
    fn stand_in(&self, username: &str) -> Option<usize> {
        let mac = self.mac(username, &[]);
        let [a, b, c, d, ..] = mac;
        usize::try_from(u32::from_be_bytes([a, b, c, d]))
            .ok()?
            .checked_rem(self.table.len())
    }

    fn mac(&self, username: &str, password: &[u8]) -> [u8; MAC_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        // The length in front keeps ("ab", "c") apart from ("a", "bc").
        context.update(&(username.len() as u64).to_be_bytes());
        context.update(username.as_bytes());
        context.update(password);
        context
            .sign()
            .as_ref()
            .try_into()
            .expect("HMAC-SHA-256 gives 32 bytes")
    }
}

impl Authenticate for Authenticator {
    fn authenticate(&mut self, credentials: &Credentials<'_>) -> Authentication {
        self.check = None;
        match (credentials.username, credentials.password) {
            (Some(username), Some(password)) => self.login(username, password),
            (None, None) => self.anonymous(credentials.client_id),
            (Some(_), None) | (None, Some(_)) => Authentication::Denied(Denial::BadCredentials),
        }
    }

    fn dialog(&mut self, method: &str, entropy: &mut dyn Entropy) -> Option<Box<dyn Dialog>> {
        if method != scram::METHOD {
            return None;
        }
        let mut random = [0; scram::NONCE_BYTES];
        entropy.fill(&mut random);
        Some(Box::new(Scram::new(
            Arc::clone(&self.table),
            self.key.clone(),
            &random,
        )))
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.verified.iter().flatten().count();
        write!(f, "Authenticator({} devices, {known} verified)", self.table.len())
    }
}

/// A password check that is too slow for the thread that owns the session. Hand it to a worker.
pub struct PasswordCheck {
    table: Arc<DeviceTable>,
    /// `None` for an unknown user name, which is checked against a stand-in and denied.
    index: Option<usize>,
    hash: PasswordHash,
    password: Zeroizing<Vec<u8>>,
    mac: [u8; MAC_LEN],
}

impl PasswordCheck {
    /// Does the work: up to half a second of computing.
    #[must_use]
    pub fn run(self) -> CheckedPassword {
        let correct = self.hash.verify(&self.password);
        CheckedPassword {
            table: self.table,
            index: self.index,
            mac: self.mac,
            correct,
        }
    }
}

impl fmt::Debug for PasswordCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordCheck({} iterations)", self.hash.iterations())
    }
}

/// The result of a [`PasswordCheck`], for [`Authenticator::handle_checked`].
pub struct CheckedPassword {
    table: Arc<DeviceTable>,
    index: Option<usize>,
    mac: [u8; MAC_LEN],
    correct: bool,
}

impl fmt::Debug for CheckedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckedPassword")
    }
}

/// Name of an anonymous client that left the choice of its client identifier to the gateway.
///
/// Such clients (`mosquitto_pub` is one) are often a new connection for each message; one name for all keeps them from filling every list of devices.
pub const UNNAMED: &str = "anonymous";
/// Iterations that are checked at once, on the thread that owns the session: about 0.3 ms.
pub const ITERATIONS_INLINE_MAX: u32 = 1_000;

const MAC_LEN: usize = 32;

#[cfg(test)]
mod tests;
