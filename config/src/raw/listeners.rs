//! The listeners of `[mqtt]` beside the plain one, and what devices show there.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{FILE, SECRET};
use crate::reader::{Field, Header, Item, RawTable, Reader};
use crate::settings::{ClientAuth, SecretSource};
use crate::shape::{Choice, List, Shape, section};
use crate::spec::Presence::{Default, Optional, Required};
use crate::spec::{Key, Spec, When};
use crate::text::{COMMON_NAME, DNS_NAME, FINGERPRINT, LISTEN, ORIGIN, PSK_IDENTITY, URL_PATH};

const CLIENT_AUTH: Choice<ClientAuth> = Choice(&[
    ("required", ClientAuth::Required),
    ("optional", ClientAuth::Optional),
]);

tables! {
    /// MQTT over TLS 1.2 and 1.3. Files that change are read again within a minute; connections that exist stay.
    MqttTls {
        /// Addresses.
        listen: Vec<Item<SocketAddr>> = List { item: LISTEN, min: 1, max: 16 }, Default("[\"0.0.0.0:8883\"]");
        /// Certificate chain in PEM, the server's own first.
        certificate: PathBuf = FILE, Required;
        /// Private key in PEM.
        key: PathBuf = FILE, Required;
        /// Certificates of the authorities that sign those of devices, in PEM.
        client_ca: PathBuf = FILE, Optional("devices are not asked for certificates");
        /// Whether a device must show a certificate. One that it shows has to be that of a device in either case.
        client_auth: ClientAuth = CLIENT_AUTH, Default("\"required\""), if When::With(&["client_ca"]);
        /// Revocation lists in PEM, one of each authority that signs devices' certificates itself. They count beyond their
        /// next update, as a gateway may be without a network.
        client_crl: PathBuf = FILE, Optional("nothing is revoked"), if When::With(&["client_ca"]);
    }

    /// MQTT over TLS 1.2 and 1.3 with pre-shared keys (RFC 4279, RFC 8446 §2.2), for devices that cannot handle certificates.
    MqttPsk {
        /// Addresses.
        listen: Vec<Item<SocketAddr>> = List { item: LISTEN, min: 1, max: 16 }, Default("[\"0.0.0.0:8884\"]");
    }

    /// MQTT over WebSockets (MQTT 5.0 §6), for browsers and for networks that let nothing else through.
    MqttWebSocket {
        /// Addresses without TLS.
        listen: Vec<Item<SocketAddr>> = List { item: LISTEN, min: 0, max: 16 },
            Optional("`[\"0.0.0.0:8083\"]`, and none if there is `[mqtt.websocket.tls]`");
        /// Path of the requests.
        path: String = URL_PATH, Default("\"/mqtt\"");
        /// Origins of the web pages that may connect. Clients that are no browsers name none and are let in.
        origins: Vec<Item<String>> = List { item: ORIGIN, min: 0, max: 64 }, Optional("every page may");
        /// Listener with TLS.
        tls: MqttWebSocketTls = section::<MqttWebSocketTls>(), Optional("off");
    }

    /// MQTT over WebSockets over TLS 1.2 and 1.3, as `[mqtt.tls]`.
    MqttWebSocketTls {
        /// Addresses.
        listen: Vec<Item<SocketAddr>> = List { item: LISTEN, min: 1, max: 16 }, Default("[\"0.0.0.0:8443\"]");
        /// Certificate chain in PEM, the server's own first.
        certificate: PathBuf = FILE, Required;
        /// Private key in PEM.
        key: PathBuf = FILE, Required;
        /// Certificates of the authorities that sign those of devices, in PEM.
        client_ca: PathBuf = FILE, Optional("devices are not asked for certificates");
        /// Whether a device must show a certificate. One that it shows has to be that of a device in either case.
        client_auth: ClientAuth = CLIENT_AUTH, Default("\"required\""), if When::With(&["client_ca"]);
        /// Revocation lists in PEM, one of each authority that signs devices' certificates itself.
        client_crl: PathBuf = FILE, Optional("nothing is revoked"), if When::With(&["client_ca"]);
    }

    /// What a device's certificate has to say, beside being signed by one of `client_ca`.
    Certificate exactly_one("subject_cn", "san_dns", "sha256") {
        /// The common name of its subject, the only one it has.
        subject_cn: String = COMMON_NAME, Optional("none");
        /// One of its alternative names, a DNS name in full.
        san_dns: String = DNS_NAME, Optional("none");
        /// SHA-256 of the certificate itself, in hexadecimal digits; colons between them are allowed.
        sha256: [u8; 32] = FINGERPRINT, Optional("none");
    }

    /// The key that a device shares with the gateway.
    DevicePsk {
        /// The identity it names; no secret.
        identity: String = PSK_IDENTITY, Required;
        /// The key: 16 to 64 bytes, written as hexadecimal digits.
        key: SecretSource = SECRET, Required;
    }
}
