//! Agreeing on a secret, and comparing both sides.

use aws_lc_rs::agreement::{Algorithm, PrivateKey, UnparsedPublicKey, agree};
use cryptoki::error::Error as CryptokiError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};

use super::{TokenOnTrial, TrialOutcome, ec_point, failed, wrong};

/// A curve on which secrets are agreed.
pub(super) struct Agreement<'a> {
    pub(super) algorithm: &'static Algorithm,
    /// `CKA_EC_PARAMS`, in the order in which they are tried.
    pub(super) parameters: &'a [&'a [u8]],
    pub(super) generate: Mechanism<'a>,
    /// Length of a point without anything around it.
    pub(super) point_bytes: usize,
}

impl TokenOnTrial<'_> {
    /// Agrees on a secret with a key of ours, with session objects, and compares both sides.
    pub(super) fn agree(&self, curve: &Agreement<'_>) -> Result<String, TrialOutcome> {
        let crypto = || wrong("the cryptographic library failed".to_owned());
        let ours = PrivateKey::generate(curve.algorithm).map_err(|_| crypto())?;
        let our_point = ours.compute_public_key().map_err(|_| crypto())?;
        self.session(|session| {
            let mut outcome = Err(CryptokiError::NotSupported);
            for parameters in curve.parameters {
                let public = self.public_template(parameters, false, Attribute::Derive(true));
                let private = self.private_template(false, Attribute::Derive(true));
                outcome = session.generate_key_pair(&curve.generate, &public, &private);
                if outcome.is_ok() {
                    break;
                }
            }
            let (public, private) = outcome.map_err(failed)?;
            let point = ec_point(session, public)?;
            let their_point = point
                .len()
                .checked_sub(curve.point_bytes)
                .and_then(|header| point.get(header..))
                .ok_or_else(|| wrong(format!("CKA_EC_POINT has {} bytes", point.len())))?;
            let secret = agree(
                &ours,
                UnparsedPublicKey::new(curve.algorithm, their_point),
                wrong("CKA_EC_POINT is no point of the curve".to_owned()),
                |secret| Ok(secret.to_vec()),
            )?;
            // An OCTET STRING around the point is what some modules want instead.
            let mut wrapped = vec![0x04, u8::try_from(our_point.as_ref().len()).unwrap_or(u8::MAX)];
            wrapped.extend_from_slice(our_point.as_ref());
            let mut refused = CryptokiError::NotSupported;
            for (form, point) in [("raw", our_point.as_ref()), ("DER", &wrapped)] {
                let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), point));
                match session.derive_key(&mechanism, private, &self.derived_template()) {
                    Ok(derived) => {
                        let value = session
                            .get_attributes(derived, &[AttributeType::Value])
                            .map_err(failed)?;
                        let is_same =
                            matches!(value.as_slice(), [Attribute::Value(value)] if *value == secret);
                        return if is_same {
                            Ok(format!("the other point is given {form}"))
                        } else {
                            Err(wrong("the two sides do not agree".to_owned()))
                        };
                    }
                    Err(error) => refused = error,
                }
            }
            Err(failed(refused))
        })
    }

    /// A secret that can be read, so that it can be compared: it is of no use to anybody.
    fn derived_template(&self) -> Vec<Attribute> {
        vec![
            Attribute::Token(false),
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::ValueLen(32.into()),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::Label(self.label.clone().into_bytes()),
        ]
    }
}
