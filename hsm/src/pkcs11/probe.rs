//! What a module has to offer, as data.

use std::path::Path;

use cryptoki::mechanism::MechanismType;
use cryptoki::slot::{Slot, TokenInfo};

use super::module::{Entered, Module};
use crate::error::{CallError, Error, PinState};
use crate::uri::Pkcs11Uri;

mod report;
mod trial;

pub use report::{
    ProbeReport, Serials, SignLatency, TokenTrials, Trial, TrialOutcome, TrialRow, probe_report,
};

/// Everything a module shows without a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The module itself, if it says.
    pub library: Option<Library>,
    /// All its slots, empty ones included.
    pub slots: Vec<SlotSummary>,
}

/// `CK_INFO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Maker.
    pub manufacturer: String,
    /// Description.
    pub description: String,
    /// Version of the module, major and minor.
    pub version: (u8, u8),
    /// Version of PKCS#11, major and minor.
    pub cryptoki_version: (u8, u8),
}

/// `CK_SLOT_INFO` and what is in the slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSummary {
    /// Number of the slot.
    pub slot_id: u64,
    /// Description.
    pub description: String,
    /// Maker.
    pub manufacturer: String,
    /// The token, if there is one and it answers.
    pub token: Option<TokenSummary>,
    /// Why slot or token could not be read.
    pub problem: Option<CallError>,
}

/// `CK_TOKEN_INFO` and the mechanisms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSummary {
    /// A URI that names this token.
    pub uri: Pkcs11Uri,
    /// Whether it was ever initialised.
    pub is_initialized: bool,
    /// Whether keys can be made on it.
    pub is_write_protected: bool,
    /// Whether a login is needed.
    pub needs_login: bool,
    /// Whether the user PIN was set.
    pub has_user_pin: bool,
    /// Whether the PIN is typed on the token.
    pub has_pin_pad: bool,
    /// What the flags warn of.
    pub pin_state: Option<PinState>,
    /// Names of the mechanisms.
    pub mechanisms: Vec<String>,
}

/// Lists slots, tokens and mechanisms of a module. Needs no PIN.
///
/// # Errors
/// [`Error::ModuleLoad`] and [`Error::Module`]; a slot that fails is in the list with its problem.
pub fn probe(module: &Path) -> Result<Probe, Error> {
    let module = Module::load(module)?;
    let entered = module.enter();
    let slots = entered
        .context()
        .get_all_slots()
        .map_err(|error| entered.module_error(error))?;
    let slots = slots.into_iter().map(|slot| summarize(&entered, slot)).collect();
    Ok(Probe {
        library: library(&entered),
        slots,
    })
}

/// Reads `CK_INFO`; nothing depends on it, so a module that fails here is just not described.
pub(super) fn library(entered: &Entered<'_>) -> Option<Library> {
    let info = entered.context().get_library_info().ok()?;
    let version = |version: cryptoki::types::Version| (version.major(), version.minor());
    Some(Library {
        manufacturer: text(info.manufacturer_id()),
        description: text(info.library_description()),
        version: version(info.library_version()),
        cryptoki_version: version(info.cryptoki_version()),
    })
}

fn summarize(entered: &Entered<'_>, slot: Slot) -> SlotSummary {
    let mut summary = SlotSummary {
        slot_id: slot.id(),
        description: String::new(),
        manufacturer: String::new(),
        token: None,
        problem: None,
    };
    match entered.context().get_slot_info(slot) {
        Ok(info) => {
            summary.description = text(info.slot_description());
            summary.manufacturer = text(info.manufacturer_id());
            if !info.token_present() {
                return summary;
            }
        }
        Err(error) => summary.problem = Some(error.into()),
    }
    match entered.context().get_token_info(slot) {
        Ok(info) => {
            summary.token = Some(TokenSummary {
                uri: token_uri(&info),
                is_initialized: info.token_initialized(),
                is_write_protected: info.write_protected(),
                needs_login: info.login_required(),
                has_user_pin: info.user_pin_initialized(),
                has_pin_pad: info.protected_authentication_path(),
                pin_state: pin_state(&info),
                mechanisms: mechanism_names(entered, slot),
            });
        }
        Err(error) => summary.problem = Some(error.into()),
    }
    summary
}

/// Returns a URI with all that identifies a token.
pub(super) fn token_uri(info: &TokenInfo) -> Pkcs11Uri {
    let some = |value: &str| Some(text(value)).filter(|value| !value.is_empty());
    Pkcs11Uri {
        token: some(info.label()),
        manufacturer: some(info.manufacturer_id()),
        serial: some(info.serial_number()),
        model: some(info.model()),
        ..Pkcs11Uri::default()
    }
}

/// Returns what the token's flags warn of, the worst first.
pub(super) fn pin_state(info: &TokenInfo) -> Option<PinState> {
    if info.user_pin_locked() {
        Some(PinState::Locked)
    } else if info.user_pin_final_try() {
        Some(PinState::FinalTry)
    } else if info.user_pin_count_low() {
        Some(PinState::CountLow)
    } else {
        None
    }
}

/// Returns the names of a slot's mechanisms; those the binding does not know are left out.
pub(super) fn mechanism_names(entered: &Entered<'_>, slot: Slot) -> Vec<String> {
    let mechanisms = entered.context().get_mechanism_list(slot).unwrap_or_default();
    mechanisms.iter().map(MechanismType::to_string).collect()
}

/// Takes off what fills up fixed-length texts: blanks by the standard, zero bytes by some modules.
pub(super) fn text(padded: &str) -> String {
    padded.trim_end_matches([' ', '\0']).to_owned()
}
