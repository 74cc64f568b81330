//! The identity key, and the attested channel key that lives on it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fieldgate_config::settings::{
    Identity as IdentitySettings, Sandbox, SecretSource as ConfiguredSecret, Settings,
};
use fieldgate_hsm::{
    Deliver, Limits, Priority, SandboxSettings, Signer, Worker, process::ProcessSettings,
    tpm::TpmDictionaryAttack,
};
use fieldgate_proto::{
    channel::LocalIdentity,
    crypto::X25519Secret,
    identity::{
        AttestationDraft, ChangeDraft, ChangeHistory, KeyAlgorithm, LIFETIME_SECS_MAX, PublicKey, SKEW_SECS,
    },
    seal::{SealKey, SealKeyDraft},
    time::{ClockQuality, WallTime},
};

use super::{StartError, durable::write_durably, entropy::SystemEntropy, signing::SignerHandle};

mod making;
pub(crate) mod tpm;

pub(crate) use making::{create, destroy_old, rotate};

/// What status shows of the identity key; written by the renewal and by who looks at the TPM, read by status.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyHealth {
    /// End of the attestation in use, seconds since 1970.
    pub(crate) not_after: u64,
    /// What the last failure was, while it has not worked again.
    pub(crate) problem: Option<String>,
    /// The protection against guessing of the TPM that holds the key; `None` where there is none.
    pub(crate) tpm: Option<TpmDictionaryAttack>,
}

/// The identity: history, signer, and the way to new attestations.
pub(crate) struct Identity {
    history: ChangeHistory,
    signer: SignerHandle,
    sequence: SequenceFile,
    /// Begin of the attestation in use, seconds since 1970.
    attested_at: u64,
    /// The period of [`shared_sequence`] in which an attestation was asked for last.
    period: u64,
    /// Shared with status.
    pub(crate) health: Arc<Mutex<KeyHealth>>,
    /// `token`, `file` or `memory`.
    pub(crate) place: &'static str,
    /// Looks at the TPM, where there is one.
    tpm: Option<tpm::Watch>,
}

impl Identity {
    /// Opens the identity that the settings name, in a worker process, and begins to look at the TPM that holds it.
    ///
    /// # Errors
    /// [`StartError`] if the key cannot be used, or history and key do not belong together.
    pub(crate) fn open(settings: &Settings) -> Result<Self, StartError> {
        let mut identity = Self::open_key(
            &settings.identity,
            &settings.sandbox,
            &settings.node.state_dir,
            is_shared(settings),
        )?;
        identity.watch_tpm(settings);
        Ok(identity)
    }

    /// Looks at the TPM from now on, in the place of before: its worker may be another now.
    fn watch_tpm(&mut self, settings: &Settings) {
        self.tpm = None;
        let Some(device) = tpm::device(settings) else {
            return;
        };
        match tpm::Watch::start(device, &self.signer.worker(), Arc::clone(&self.health)) {
            Ok(watch) => self.tpm = Some(watch),
            Err(error) => tracing::warn!(%error, "the TPM is not looked at"),
        }
    }

    /// Opens the key in a worker process that may do what `sandbox` adds.
    fn open_key(
        settings: &IdentitySettings,
        sandbox: &Sandbox,
        state_dir: &Path,
        is_shared: bool,
    ) -> Result<Self, StartError> {
        let history = read_history(state_dir)?;
        let (mut process, place) = process_settings(settings, sandbox, state_dir)?;
        process.wanted = Some(signer_key(history.current_key())?);
        let path = state_dir.join("attestation.sequence");
        let sequence = if is_shared {
            SequenceFile::Shared(path)
        } else {
            SequenceFile::Kept(path)
        };
        Self::start(history, sequence, place, |limits, deliver| {
            Worker::start_process(limits, process, deliver)
        })
    }

    /// Takes a signer that lives in memory only, and makes an identity for it.
    ///
    /// # Errors
    /// [`StartError`] if the system gives no thread.
    pub(crate) fn in_memory(
        mut signer: fieldgate_hsm::SoftwareSigner,
        wall: WallTime,
    ) -> Result<Self, StartError> {
        let history = new_history(&mut signer, wall)?;
        Self::start(
            history,
            SequenceFile::Forgotten(0),
            "memory",
            |limits, deliver| Worker::start(limits, move || Ok(Box::new(signer)), deliver),
        )
    }

    fn start(
        history: ChangeHistory,
        sequence: SequenceFile,
        place: &'static str,
        start: impl FnOnce(Limits, Deliver) -> Result<Worker, fieldgate_hsm::Error>,
    ) -> Result<Self, StartError> {
        let limits = Limits::default();
        let key_error = |error: fieldgate_hsm::Error| StartError::key(&error);
        let signer = SignerHandle::start(|deliver| start(limits, deliver))?;
        let worker = signer.worker();
        let key = worker.wait_open(OPEN_TIME_MAX).map_err(key_error)?;
        if history.current_key().as_bytes() != key.as_bytes() {
            return Err(StartError::new(format!(
                "the key at {} is not the current key of the identity {}",
                worker.location(),
                history.identifier()
            ))
            .hint("point [identity] at the right key, or restore identity.history from the backup that belongs to it"));
        }
        Ok(Self {
            history,
            signer,
            sequence,
            attested_at: 0,
            period: 0,
            health: Arc::default(),
            place,
            tpm: None,
        })
    }

    /// Takes the key that the history names by now in the place of the one before: it was rotated.
    ///
    /// # Errors
    /// [`StartError`] if the key cannot be used; the one before stays in use.
    pub(crate) async fn reload(&mut self, settings: &Settings) -> Result<(), StartError> {
        let (identity, sandbox) = (settings.identity.clone(), settings.sandbox.clone());
        let state_dir = settings.node.state_dir.clone();
        let is_shared = is_shared(settings);
        let opened =
            tokio::task::spawn_blocking(move || Self::open_key(&identity, &sandbox, &state_dir, is_shared));
        let opened = opened.await;
        let fresh = opened.map_err(|error| StartError::new(format!("opening the new key: {error}")))??;
        self.signer.replace(&fresh.signer);
        self.history = fresh.history;
        self.watch_tpm(settings);
        Ok(())
    }

    /// Returns the same identity for a second node in this process.
    pub(crate) fn share(&self) -> Self {
        Self {
            history: self.history.clone(),
            signer: self.signer.clone(),
            sequence: self.sequence.clone(),
            attested_at: 0,
            period: 0,
            health: Arc::default(),
            place: self.place,
            tpm: None,
        }
    }

    /// Returns the change history.
    pub(crate) const fn history(&self) -> &ChangeHistory {
        &self.history
    }

    /// Returns the way to the key.
    pub(crate) fn signer(&self) -> SignerHandle {
        self.signer.clone()
    }

    /// Returns whether the attestation in use begins later than others can believe: the clock was ahead and has been corrected.
    pub(crate) fn is_ahead(&self, wall: WallTime) -> bool {
        wall.quality >= ClockQuality::Authority
            && wall.unix_secs().saturating_add(SKEW_SECS) < self.attested_at
    }

    /// Returns whether the number of the attestation in use is that of a period that is over: peers that have met another process of this
    /// identity take it no more.
    pub(crate) fn is_period_over(&self, wall: WallTime) -> bool {
        matches!(self.sequence, SequenceFile::Shared(_)) && shared_sequence(wall.unix_secs()) > self.period
    }

    /// Draws a new channel key and has the identity key attest it for [`LIFETIME_SECS_MAX`] seconds from `wall` on.
    ///
    /// # Errors
    /// [`StartError`] if the key does not sign or the sequence cannot be kept.
    pub(crate) async fn attest(&mut self, wall: WallTime) -> Result<LocalIdentity, StartError> {
        let result = self.try_attest(wall).await;
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok((_, not_after)) => {
                health.not_after = *not_after;
                health.problem = None;
            }
            Err(error) => health.problem = Some(error.to_string()),
        }
        result.map(|(local, _)| local)
    }

    /// Draws a key that seals readings and has the identity key attest it for [`LIFETIME_SECS_MAX`] seconds from `wall` on.
    ///
    /// # Errors
    /// As for [`Identity::attest`].
    pub(crate) async fn attest_seals(&mut self, wall: WallTime) -> Result<SealKey, StartError> {
        let now = wall.unix_secs();
        let sequence = self.sequence.next(now)?;
        let broken = |error: fieldgate_proto::identity::IdentityError| {
            StartError::new(format!("attestation of the key for seals: {error}")).hint(error.hint())
        };
        let draft = SealKeyDraft::new(
            &mut SystemEntropy,
            &self.history,
            now,
            LIFETIME_SECS_MAX,
            sequence,
        )
        .map_err(broken)?;
        let signature = self.signer.sign(Priority::Renewal, draft.message()).await?;
        draft.finish(signature, &self.history).map_err(broken)
    }

    async fn try_attest(&mut self, wall: WallTime) -> Result<(LocalIdentity, u64), StartError> {
        let now = wall.unix_secs();
        self.period = shared_sequence(now);
        let sequence = self.sequence.next(now)?;
        let secret = X25519Secret::generate(&mut SystemEntropy);
        let not_after = now + LIFETIME_SECS_MAX;
        let broken = |error: fieldgate_proto::identity::IdentityError| {
            StartError::new(format!("attestation: {error}")).hint(error.hint())
        };
        let draft = AttestationDraft::new(&self.history, *secret.public(), now, LIFETIME_SECS_MAX, sequence)
            .map_err(broken)?;
        let signature = self.signer.sign(Priority::Renewal, draft.message()).await?;
        let attestation = draft.finish(signature, &self.history).map_err(broken)?;
        let local = LocalIdentity::new(&self.history, &attestation, secret).map_err(broken)?;
        self.attested_at = now;
        Ok((local, not_after))
    }
}

/// Reads the history of this node's identity.
///
/// # Errors
/// [`StartError`] if there is none or it is damaged.
pub(crate) fn read_history(state_dir: &Path) -> Result<ChangeHistory, StartError> {
    let path = history_path(state_dir);
    let bytes = fs::read(&path).map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let error = StartError::file(&path, &error);
        if missing {
            error.hint("make the identity first: `fieldgate identity create --config FILE`")
        } else {
            error
        }
    })?;
    ChangeHistory::decode(&bytes).map_err(|error| {
        StartError::new(format!("{}: {error}", path.display())).hint("restore the file from a backup")
    })
}

fn new_history(signer: &mut dyn Signer, wall: WallTime) -> Result<ChangeHistory, StartError> {
    let broken = |error: fieldgate_proto::identity::IdentityError| {
        StartError::new(format!("identity: {error}")).hint(error.hint())
    };
    let draft = ChangeDraft::first(history_key(signer.public_key())?, wall.unix_secs());
    let signature = signer
        .sign(&draft.message())
        .map_err(|error| StartError::key(&error))?;
    draft.finish(signature, None).map_err(broken)
}

/// Turns a signer's key into the form that histories hold.
fn history_key(key: &fieldgate_hsm::PublicKey) -> Result<PublicKey, StartError> {
    let algorithm = match key.algorithm() {
        fieldgate_hsm::Algorithm::P256 => KeyAlgorithm::EcdsaP256,
        fieldgate_hsm::Algorithm::Ed25519 => KeyAlgorithm::Ed25519,
    };
    PublicKey::new(algorithm, key.as_bytes(), 0)
        .map_err(|error| StartError::new(format!("identity: {error}")).hint(error.hint()))
}

/// Turns a key of a history into the signer's form of it.
fn signer_key(key: &PublicKey) -> Result<fieldgate_hsm::PublicKey, StartError> {
    let algorithm = match key.algorithm() {
        KeyAlgorithm::EcdsaP256 => fieldgate_hsm::Algorithm::P256,
        KeyAlgorithm::Ed25519 => fieldgate_hsm::Algorithm::Ed25519,
    };
    fieldgate_hsm::PublicKey::from_bytes(algorithm, key.as_bytes()).ok_or_else(|| {
        StartError::new("the current key in identity.history is malformed")
            .hint("restore the file from a backup")
    })
}

/// Turns the file's words into those of the process that has the key, and says whether it is in a `token` or a `file`.
pub(super) fn process_settings(
    settings: &IdentitySettings,
    sandbox: &Sandbox,
    state_dir: &Path,
) -> Result<(ProcessSettings, &'static str), StartError> {
    let (mut signer, place) = signer_settings(settings)?;
    if let fieldgate_hsm::Settings::Pkcs11 { sandbox: place, .. } = &mut signer {
        *place = SandboxSettings {
            extra_paths: sandbox.paths.clone(),
            network: sandbox.network,
            environment: sandbox.environment.clone(),
        };
    }
    let process = ProcessSettings {
        state_dir: Some(state_dir.to_owned()),
        ..ProcessSettings::new(signer)
    };
    Ok((process, place))
}

/// Turns the file's words into the signer's.
fn signer_settings(
    settings: &IdentitySettings,
) -> Result<(fieldgate_hsm::Settings, &'static str), StartError> {
    match settings {
        IdentitySettings::Pkcs11 { module, uri, pin } => {
            let uri = uri
                .parse()
                .map_err(|error: fieldgate_hsm::UriError| StartError::new(error))?;
            let settings =
                fieldgate_hsm::Settings::pkcs11(uri, Some(module.clone()), Some(secret_source(pin)))
                    .map_err(|error| StartError::key(&error))?;
            Ok((settings, "token"))
        }
        IdentitySettings::File { path, passphrase } => Ok((
            fieldgate_hsm::Settings::File {
                path: path.clone(),
                key: secret_source(passphrase),
            },
            "file",
        )),
    }
}

/// Turns the file's words for where a secret is into the reader's.
pub(crate) fn secret_source(source: &ConfiguredSecret) -> fieldgate_hsm::SecretSource {
    match source {
        ConfiguredSecret::Credential(name) => fieldgate_hsm::SecretSource::Credential(name.clone()),
        ConfiguredSecret::File(path) => fieldgate_hsm::SecretSource::File(path.clone()),
        ConfiguredSecret::Environment(name) => fieldgate_hsm::SecretSource::Environment(name.clone()),
    }
}

fn history_path(state_dir: &Path) -> PathBuf {
    state_dir.join("identity.history")
}

/// Returns whether several processes have the identity.
fn is_shared(settings: &Settings) -> bool {
    let authority = settings.authority.as_ref();
    authority.is_some_and(|authority| authority.cluster.is_some())
}

/// Returns the number of attestations in the period that `unix_secs` is in: when it ends, so that it is above those of a process that
/// was alone before.
const fn shared_sequence(unix_secs: u64) -> u64 {
    (unix_secs / SHARED_PERIOD_SECS + 1) * SHARED_PERIOD_SECS
}

/// How long the processes of one identity use the same number for their attestations, in seconds. Each attests anew when it is over.
const SHARED_PERIOD_SECS: u64 = 6 * 3_600;

/// The number of the last attestation. Peers refuse one that is lower than what they have seen.
#[derive(Clone)]
enum SequenceFile {
    /// In a file, so that it grows across restarts even if the clock goes back.
    Kept(PathBuf),
    /// The same, for one of several processes that have the identity: all use the number of the period.
    Shared(PathBuf),
    /// In memory, for an identity that does not outlive the process.
    Forgotten(u64),
}

impl SequenceFile {
    /// Returns a number higher than all before, kept before it is used; in one period the same, where several processes have the
    /// identity.
    fn next(&mut self, unix_secs: u64) -> Result<u64, StartError> {
        let is_shared = matches!(self, Self::Shared(_));
        match self {
            Self::Forgotten(last) => {
                *last = (*last + 1).max(unix_secs);
                Ok(*last)
            }
            Self::Kept(path) | Self::Shared(path) => {
                let last = match fs::read_to_string(&*path) {
                    Ok(text) => text.trim().parse().map_err(|_| {
                        StartError::new(format!("{} does not hold a number", path.display()))
                            .hint("write the number of seconds since 1970 into it")
                    })?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => 0_u64,
                    Err(error) => return Err(StartError::file(path, &error)),
                };
                let next = if is_shared {
                    last.max(shared_sequence(unix_secs))
                } else {
                    last.saturating_add(1).max(unix_secs)
                };
                write_durably(path, next.to_string().as_bytes())
                    .map_err(|error| StartError::file(path, &error))?;
                Ok(next)
            }
        }
    }
}

/// Longest time a token may take to open: longer than a worker process may be silent, which says more.
const OPEN_TIME_MAX: Duration = Duration::from_secs(45);
