//! PKCS#11 URIs (RFC 7512).

use fieldgate_hsm::Pkcs11Uri;

/// Reads the input as a URI; what is taken never holds a PIN in clear.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(uri) = text.parse::<Pkcs11Uri>() {
        let _ = uri.pin_secret();
        let _ = format!("{uri:?}");
    }
}
