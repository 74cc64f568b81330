//! Finding a token by its URI, and what it must be able to do.

use cryptoki::mechanism::MechanismType;
use cryptoki::slot::{Slot, TokenInfo};

use super::module::Entered;
use super::probe::{self, mechanism_names, text, token_uri};
use super::session::Sessions;
use crate::error::Error;
use crate::signer::Algorithm;
use crate::uri::Pkcs11Uri;

/// A token that was found.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) slot: Slot,
    pub(super) info: TokenInfo,
}

impl Token {
    /// Finds the one token that matches.
    pub(super) fn find(entered: &Entered<'_>, uri: &Pkcs11Uri) -> Result<Self, Error> {
        let context = entered.context();
        let slots = context
            .get_slots_with_token()
            .map_err(|error| entered.module_error(error))?;
        // A slot that fails must not hide the others.
        let tokens: Vec<Self> = slots
            .into_iter()
            .filter_map(|slot| context.get_token_info(slot).ok().map(|info| Self { slot, info }))
            .filter(|token| token.info.token_initialized())
            .collect();
        let uris = |tokens: &[Self]| {
            tokens
                .iter()
                .map(|token| token_uri(&token.info).to_string())
                .collect()
        };
        let (mut matching, others): (Vec<Self>, Vec<Self>) =
            tokens.into_iter().partition(|token| token.matches(entered, uri));
        match (matching.pop(), matching.is_empty()) {
            (Some(token), true) => Ok(token),
            (Some(token), false) => {
                matching.push(token);
                Err(Error::TokenAmbiguous {
                    uri: uri.to_string(),
                    offered: uris(&matching),
                })
            }
            (None, _) => Err(Error::TokenNotFound {
                uri: uri.to_string(),
                offered: uris(&others),
            }),
        }
    }

    /// Says whether library, slot and token have all that the URI names (RFC 7512 §2.4).
    fn matches(&self, entered: &Entered<'_>, uri: &Pkcs11Uri) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| *wanted == text(found))
        };
        let is_token = is(&uri.token, self.info.label())
            && is(&uri.manufacturer, self.info.manufacturer_id())
            && is(&uri.serial, self.info.serial_number())
            && is(&uri.model, self.info.model())
            && uri.slot_id.is_none_or(|wanted| wanted == self.slot.id());
        is_token && self.matches_slot(entered, uri, &is) && matches_library(entered, uri, &is)
    }

    fn matches_slot(
        &self,
        entered: &Entered<'_>,
        uri: &Pkcs11Uri,
        is: &impl Fn(&Option<String>, &str) -> bool,
    ) -> bool {
        if uri.slot_description.is_none() && uri.slot_manufacturer.is_none() {
            return true;
        }
        entered.context().get_slot_info(self.slot).is_ok_and(|info| {
            is(&uri.slot_description, info.slot_description())
                && is(&uri.slot_manufacturer, info.manufacturer_id())
        })
    }
}

fn matches_library(
    entered: &Entered<'_>,
    uri: &Pkcs11Uri,
    is: &impl Fn(&Option<String>, &str) -> bool,
) -> bool {
    if uri.library_manufacturer.is_none()
        && uri.library_description.is_none()
        && uri.library_version.is_none()
    {
        return true;
    }
    probe::library(entered).is_some_and(|library| {
        is(&uri.library_manufacturer, &library.manufacturer)
            && is(&uri.library_description, &library.description)
            && uri.library_version.is_none_or(|wanted| wanted == library.version)
    })
}

/// A mechanism and what it must be good for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needed {
    mechanism: MechanismType,
    name: &'static str,
    use_for: Use,
}

#[derive(Clone, Copy, Debug)]
enum Use {
    Sign,
    Decrypt,
    GenerateKeyPair,
}

/// The mechanism that opens wrapped secrets.
pub(super) const UNWRAPPING: Needed = Needed {
    mechanism: MechanismType::RSA_PKCS_OAEP,
    name: "CKM_RSA_PKCS_OAEP",
    use_for: Use::Decrypt,
};

/// The mechanism that makes a key for that.
pub(super) const GENERATING_RSA: Needed = Needed {
    mechanism: MechanismType::RSA_PKCS_KEY_PAIR_GEN,
    name: "CKM_RSA_PKCS_KEY_PAIR_GEN",
    use_for: Use::GenerateKeyPair,
};

/// Returns the mechanism that signs a digest.
pub(super) const fn signing_mechanism(algorithm: Algorithm) -> Needed {
    match algorithm {
        Algorithm::P256 => Needed {
            mechanism: MechanismType::ECDSA,
            name: "CKM_ECDSA",
            use_for: Use::Sign,
        },
        Algorithm::Ed25519 => Needed {
            mechanism: MechanismType::EDDSA,
            name: "CKM_EDDSA",
            use_for: Use::Sign,
        },
    }
}

/// Returns the mechanism that makes a key.
pub(super) const fn generating_mechanism(algorithm: Algorithm) -> Needed {
    match algorithm {
        Algorithm::P256 => Needed {
            mechanism: MechanismType::ECC_KEY_PAIR_GEN,
            name: "CKM_EC_KEY_PAIR_GEN",
            use_for: Use::GenerateKeyPair,
        },
        Algorithm::Ed25519 => Needed {
            mechanism: MechanismType::ECC_EDWARDS_KEY_PAIR_GEN,
            name: "CKM_EC_EDWARDS_KEY_PAIR_GEN",
            use_for: Use::GenerateKeyPair,
        },
    }
}

/// Refuses a token that lacks a mechanism, or has it for something else.
///
/// Both the list and the description are asked: some modules describe what they were told not to do.
pub(super) fn require_mechanism(sessions: &Sessions, needed: Needed) -> Result<(), Error> {
    let entered = sessions.enter();
    let slot = sessions.slot();
    let is_listed = entered
        .context()
        .get_mechanism_list(slot)
        .is_ok_and(|mechanisms| mechanisms.contains(&needed.mechanism));
    let is_fit = entered
        .context()
        .get_mechanism_info(slot, needed.mechanism)
        .is_ok_and(|info| match needed.use_for {
            Use::Sign => info.sign(),
            Use::Decrypt => info.decrypt(),
            Use::GenerateKeyPair => info.generate_key_pair(),
        });
    if is_listed && is_fit {
        return Ok(());
    }
    Err(Error::Mechanism {
        token: sessions.token_uri().to_string(),
        mechanism: needed.name,
        offered: mechanism_names(&entered, slot),
    })
}
