//! The file: a tagged COSE_Sign1 with a detached payload (RFC 9052 §4.2).

use ciborium::Value;
use coset::{CborSerializable as _, CoseSign1, Header, Label, ProtectedHeader, TaggedCborSerializable as _};
use fieldgate_proto::{
    crypto::sha256,
    seal::{
        Extent, LABEL_VDP, Seal,
        merkle::{Hash, PATH_LEN_MAX},
        protected_header,
    },
};

use crate::{Proof, ProofError};

/// Longest proof in bytes: the longest reading, a history of 16 changes, and a path of 16 hashes fit.
pub const PROOF_LEN_MAX: usize = 72 << 10;

/// Label of what is ours, in both headers.
const LABEL_FIELDGATE: &str = "fg";
/// Key of inclusion proofs among the proofs of a tree (draft-ietf-cose-merkle-tree-proofs §5.2.1).
const INCLUSION: i64 = -1;
/// Label of CWT claims (RFC 9597).
const LABEL_CWT_CLAIMS: i64 = 15;
/// Claim "issued at" (RFC 8392 §3.1.6).
const CLAIM_IAT: i64 = 6;

impl Proof {
    /// Returns the file.
    ///
    /// # Panics
    /// Never: what is written here can be written.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let path = self.path.iter().map(|hash| Value::Bytes(hash.to_vec())).collect();
        let inclusion = Value::Array(vec![
            self.extent.count.into(),
            self.index.into(),
            Value::Array(path),
        ]);
        let mut inclusion_bytes = Vec::new();
        ciborium::into_writer(&inclusion, &mut inclusion_bytes).expect("a vector takes everything");
        let proofs = Value::Map(vec![(
            INCLUSION.into(),
            Value::Array(vec![Value::Bytes(inclusion_bytes)]),
        )]);
        let ours = Value::Array(vec![
            Value::Bytes(self.history.clone()),
            Value::Bytes(self.attestation.clone()),
            Value::Bytes(self.reading.clone()),
        ]);
        let protected = protected_header(&self.extent, &sha256(&[&self.attestation]), self.seal.sealed_at);
        let sign1 = CoseSign1 {
            protected: ProtectedHeader {
                header: Header::from_slice(&protected).expect("a header as it is signed is a header"),
                original_data: Some(protected),
            },
            unprotected: Header {
                rest: vec![
                    (Label::Int(LABEL_VDP), proofs),
                    (Label::Text(LABEL_FIELDGATE.to_owned()), ours),
                ],
                ..Header::default()
            },
            payload: None,
            signature: self.seal.signature.to_vec(),
        };
        sign1.to_tagged_vec().expect("a vector takes everything")
    }

    /// Reads a file, without verifying anything but its form.
    ///
    /// # Errors
    /// [`ProofError::Length`] or [`ProofError::Form`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > PROOF_LEN_MAX {
            return Err(ProofError::Length {
                len: bytes.len(),
                max: PROOF_LEN_MAX,
            });
        }
        let sign1 = CoseSign1::from_tagged_slice(bytes).map_err(|_| form("no tagged COSE_Sign1"))?;
        let sealed_at = sealed_at(&sign1.protected.header)?;
        let extent = extent(&sign1.protected.header)?;
        if sign1.payload.is_some() {
            return Err(form("the payload is not detached"));
        }
        let mut rest = sign1.unprotected.rest.into_iter();
        let (Some((Label::Int(LABEL_VDP), proofs)), Some((Label::Text(text), ours)), None) =
            (rest.next(), rest.next(), rest.next())
        else {
            return Err(form(
                "the unprotected header has other entries than 396 and \"fg\"",
            ));
        };
        if text != LABEL_FIELDGATE {
            return Err(form("the unprotected header has no entry \"fg\""));
        }
        let (count, index, path) = inclusion(proofs)?;
        if count != extent.count {
            return Err(form("the size of the tree is not that of the batch"));
        }
        let [history, attestation, reading] = array(ours, "\"fg\" has not three parts")?;
        let proof = Self {
            history: byte_string(history, "change history")?,
            attestation: byte_string(attestation, "attestation")?,
            extent,
            seal: Seal {
                sealed_at,
                signature: sign1
                    .signature
                    .try_into()
                    .map_err(|_| form("the signature has not 64 bytes"))?,
            },
            reading: byte_string(reading, "reading")?,
            index,
            path,
        };
        // A proof has one form only: what is not signed cannot be dressed up either.
        if proof.encode() == bytes {
            Ok(proof)
        } else {
            Err(form("it is not encoded as it should be"))
        }
    }
}

/// Returns which readings the protected header speaks about.
fn extent(header: &Header) -> Result<Extent, ProofError> {
    let what = "the protected header does not say which readings it is about";
    let ours = Label::Text(LABEL_FIELDGATE.to_owned());
    let (_, value) = header
        .rest
        .iter()
        .find(|(label, _)| *label == ours)
        .ok_or_else(|| form(what))?;
    let [journal, first, count] = array(value.clone(), what)?;
    Ok(Extent {
        journal: hash(journal, what)?,
        first: unsigned(&first, what)?,
        count: unsigned(&count, what)?,
    })
}

/// Returns the claim "issued at" of the protected header. The rest of it is compared with what it has to be.
fn sealed_at(header: &Header) -> Result<u64, ProofError> {
    let claims = header
        .rest
        .iter()
        .find(|(label, _)| *label == Label::Int(LABEL_CWT_CLAIMS))
        .map(|(_, claims)| claims);
    let claim = claims
        .and_then(Value::as_map)
        .and_then(|claims| claims.iter().find(|(key, _)| *key == CLAIM_IAT.into()));
    let (_, at) = claim.ok_or_else(|| form("the protected header does not say when it was sealed"))?;
    unsigned(at, "time of the seal")
}

/// Returns tree size, leaf index and path.
fn inclusion(proofs: Value) -> Result<(u64, u64, Vec<Hash>), ProofError> {
    let what = "entry 396 is not one proof of inclusion";
    let proofs = proofs.into_map().map_err(|_| form(what))?;
    let [(key, list)] = <[_; 1]>::try_from(proofs).map_err(|_| form(what))?;
    if key != INCLUSION.into() {
        return Err(form(what));
    }
    let [one] = array(list, what)?;
    let bytes = byte_string(one, what)?;
    let value: Value = ciborium::from_reader(bytes.as_slice()).map_err(|_| form(what))?;
    let [size, index, path] = array(value, what)?;
    let path = path.into_array().map_err(|_| form(what))?;
    if path.len() > PATH_LEN_MAX {
        return Err(form("the path is longer than that of the largest batch"));
    }
    let path = path.into_iter().map(|value| hash(value, what));
    Ok((
        unsigned(&size, what)?,
        unsigned(&index, what)?,
        path.collect::<Result<_, _>>()?,
    ))
}

fn array<const N: usize>(value: Value, what: &'static str) -> Result<[Value; N], ProofError> {
    let values = value.into_array().map_err(|_| form(what))?;
    values.try_into().map_err(|_| form(what))
}

fn byte_string(value: Value, what: &'static str) -> Result<Vec<u8>, ProofError> {
    value.into_bytes().map_err(|_| form(what))
}

fn hash<const N: usize>(value: Value, what: &'static str) -> Result<[u8; N], ProofError> {
    byte_string(value, what)?.try_into().map_err(|_| form(what))
}

fn unsigned(value: &Value, what: &'static str) -> Result<u64, ProofError> {
    let integer = value.as_integer().ok_or_else(|| form(what))?;
    integer.try_into().map_err(|_| form(what))
}

const fn form(what: &'static str) -> ProofError {
    ProofError::Form { what }
}
