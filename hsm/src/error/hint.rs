//! What an operator can do about an error.

use super::{Error, KeyProblem, PinState};
use crate::uri::Pkcs11Uri;

impl Error {
    /// Returns what an operator can do about it. No wildcard arm: a new variant must bring a hint.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Uri(problem) => problem.hint(),
            Self::UriUnsuitable { .. } => {
                "name a token and a private key: pkcs11:token=…;object=…;type=private"
            }
            Self::Contradiction { .. } => "remove one of the two",
            Self::Missing { .. } => "add it to the [identity] section of the configuration",
            Self::CredentialsDirectory { .. } => {
                "start fieldgate by systemd with LoadCredentialEncrypted= or LoadCredential= in its unit, or use a file"
            }
            Self::CredentialName { .. } => "write the name that stands before the colon of LoadCredential=",
            Self::SecretUnreadable { .. } => {
                "check that the file exists and that the user of fieldgate may read it"
            }
            Self::SecretVariable { .. } => {
                "set the variable in the environment of fieldgate, or better use a credential"
            }
            Self::SecretEmpty { .. } => "put the PIN or the passphrase there, without anything around it",
            Self::SecretTooLong { .. } => "check that the right file is named: a PIN or a key is far shorter",
            Self::Exposed { .. } => "take the rights of group and others away: chmod 600 on that file",
            Self::Owner { .. } => "give the file to the user that runs fieldgate: chown on that file",
            Self::FileExists { .. } => "choose another path; a key file is never overwritten",
            Self::FileUnreadable { .. } => {
                "check the path; if there is no identity yet, make one with `fieldgate identity create`"
            }
            Self::FileUnwritable { .. } => "check that the directory exists, is writable and has space",
            Self::FileDamaged { problem, .. } => problem.hint(),
            Self::WrongKey { .. } => "check the passphrase or the credential; the file itself is intact",
            Self::KeyTooShort { .. } => {
                "use at least 32 random bytes, or a passphrase with the password hash"
            }
            Self::ModuleLoad { .. } => {
                "check the path of the module and that its package is installed (SoftHSM: apt-get install softhsm2)"
            }
            Self::Module { .. } => {
                "check the module's own configuration, and that its daemon and device are there"
            }
            Self::TokenNotFound { .. } => {
                "correct the URI, or plug the token in; the message lists what is there"
            }
            Self::TokenAmbiguous { offered, .. } => tell_apart(offered),
            Self::Mechanism { .. } => {
                "use a token with ECDSA on P-256 (or Ed25519), or enable the mechanism in the module"
            }
            Self::WriteProtected { .. } => {
                "lift the write protection, or make the key with the token's own tool"
            }
            Self::PinPad { .. } => {
                "use a token that takes the PIN from the program: nobody is there to type it"
            }
            Self::PinUnset { .. } => "set the user PIN: pkcs11-tool --login --login-type so --init-pin",
            Self::PinBlocked { state, .. } => state.hint(),
            Self::PinRefused { .. } => {
                "correct the PIN and start fieldgate: another PIN is tried once. If that is wrong too, log in by hand (pkcs11-tool --login --list-objects) before the next start"
            }
            Self::PinRefusedBefore { .. } => {
                "put the right PIN there; if the token takes this one by now (pkcs11-tool --login --list-objects), remove the file pin.refused in the state directory"
            }
            Self::LoginDeadly { .. } => {
                "find out why the module crashes or hangs at the login (pkcs11-tool --login --list-objects), then remove the file pin.refused in the state directory and restart"
            }
            Self::PinMarker { .. } => "make sure that the PIN is right, then remove the file",
            Self::KeyNotFound { .. } => "correct the URI, or make the key with `fieldgate identity create`",
            Self::KeyAmbiguous { .. } => "add id= to the URI; keys differ in it",
            Self::KeyNotWanted { .. } => {
                "point [identity] at the right key, or restore identity.history from the backup that belongs to it"
            }
            Self::KeyUnsuitable { problem, .. } => problem.hint(),
            Self::PublicKeyMissing { .. } => {
                "store the public key on the token with the same CKA_ID as the private key"
            }
            Self::NotUnwrapped { .. } => {
                "restore the file from the backup that belongs to this token, or put in the token that it was made with"
            }
            Self::SignatureInvalid { .. } | Self::SignatureLength { .. } => {
                "check that public and private key belong together; otherwise the token is faulty"
            }
            Self::LabelTaken { .. } => {
                "choose another label, or remove the old object with pkcs11-tool --delete-object"
            }
            Self::Label { .. } => "choose a short label, such as fieldgate-identity",
            Self::Call { .. } => "check the token with `pkcs11-tool --login --test`",
            Self::Unavailable { .. } => "check that the token is plugged in; fieldgate tries again by itself",
            Self::Crypto { .. } => "check that the system provides random numbers; otherwise report this",
            Self::PrivateKey => "give the public key that belongs to the private key",
            Self::TimedOut { .. } => {
                "a token may be slow, gone or hanging: check it with `pkcs11-tool --login --test`"
            }
            Self::QueueFull { .. } => {
                "the token is slower than the demand: allow attestations in place of live proofs"
            }
            Self::Stopped => "restart fieldgate; its log says why the worker ended",
            Self::Thread(_) => "raise the limit of tasks of the service",
            Self::WorkerStart { .. } => "check that the service may start processes (TasksMax=)",
            Self::WorkerEnded { .. } => {
                "the module has crashed or hangs: check it with `pkcs11-tool --login --test`; fieldgate starts it anew by itself"
            }
            Self::WorkerProtocol(problem) => problem.hint(),
        }
    }
}

/// Names what tells tokens apart, given their URIs.
fn tell_apart(offered: &[String]) -> &'static str {
    let tokens: Vec<Pkcs11Uri> = offered.iter().filter_map(|uri| uri.parse().ok()).collect();
    let differ = |attribute: fn(&Pkcs11Uri) -> &Option<String>| {
        let mut values: Vec<_> = tokens.iter().map(attribute).collect();
        values.sort_unstable();
        values.dedup();
        // Only an attribute that is another for each of them leaves one.
        values.len() == offered.len()
    };
    match (differ(|uri| &uri.token), differ(|uri| &uri.serial)) {
        (true, true) => "add token=… or serial=… to the URI; the tokens differ in both",
        (true, false) => "add token=… to the URI; the tokens differ in it",
        (false, true) => "add serial=… to the URI; the tokens differ in it",
        (false, false) => {
            "add token=…, serial=…, manufacturer=… and model=… as the message shows them to the URI, and slot-id=… if that is not enough"
        }
    }
}

impl PinState {
    const fn hint(self) -> &'static str {
        match self {
            Self::Locked => "unlock the PIN with the token's security officer PIN",
            Self::FinalTry | Self::CountLow => {
                "log in once by hand with the right PIN (pkcs11-tool --login --list-objects), then start fieldgate"
            }
        }
    }
}

impl KeyProblem {
    const fn hint(&self) -> &'static str {
        match self {
            Self::NotSensitive | Self::Extractable => {
                "make a new key with `fieldgate identity create`: this one could have been copied"
            }
            Self::CannotSign
            | Self::AlwaysAuthenticate
            | Self::Unreported(_)
            | Self::Type(_)
            | Self::Curve(_) => "make a new key with `fieldgate identity create`",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(offered: &[&str]) -> &'static str {
        let offered = offered.iter().map(|uri| (*uri).to_owned()).collect();
        let uri = "pkcs11:".to_owned();
        Error::TokenAmbiguous { uri, offered }.hint()
    }

    #[test]
    fn ambiguous_tokens_are_told_apart_by_what_differs() {
        let both = hint(&["pkcs11:token=a;serial=1", "pkcs11:token=b;serial=2"]);
        assert!(both.contains("token=… or serial=…"), "{both}");
        let label = hint(&["pkcs11:token=a;serial=0", "pkcs11:token=b;serial=0"]);
        assert!(label.contains("token=…") && !label.contains("serial"), "{label}");
        let serial = hint(&["pkcs11:token=a;serial=1", "pkcs11:token=a;serial=2"]);
        assert!(
            serial.contains("serial=…") && !serial.contains("token=…"),
            "{serial}"
        );
        // Two of three have the same label, two the same number: neither alone leaves one.
        let mixed = hint(&[
            "pkcs11:token=a;serial=1",
            "pkcs11:token=a;serial=2",
            "pkcs11:token=b;serial=2",
        ]);
        assert!(mixed.contains("token=…, serial=…"), "{mixed}");
    }
}
