//! From `[mqtt]` to its listeners: what each needs to make transports.

use std::{net::SocketAddr, sync::Arc};

use data_encoding::HEXLOWER_PERMISSIVE;
use fieldgate_adapters::device::{Device, DeviceTable};
use fieldgate_config::settings::{Mqtt, MqttTls};
use zeroize::Zeroizing;

use super::{
    SecurityPlan, Stack,
    psk::{self, DeviceKey, KEY_LEN},
    tls::{self, Directory},
};
use crate::runtime::{StartError, clock::Clock, keys::secret_source};

/// Addresses on which clients speak in the same way.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) stack: Stack,
}

/// Makes every listener of the section, the plain one first; it may have no address.
///
/// # Errors
/// [`StartError`]: a file that cannot be read, a secret that is not there or no key, a library that lacks something.
pub(crate) fn listeners(
    mqtt: &Mqtt,
    table: &DeviceTable,
    clock: &Clock,
) -> Result<Vec<Listener>, StartError> {
    let directory = Arc::new(directory(mqtt, table));
    let secured = |tls: &MqttTls, websocket: Option<Arc<fieldgate_websocket::Settings>>| {
        let acceptor = tls::Acceptor::load(tls, &directory, clock)?;
        Ok(Listener {
            addresses: tls.listen.clone(),
            stack: Stack {
                security: Some(SecurityPlan::Tls(acceptor)),
                websocket,
            },
        })
    };
    let mut listeners = vec![Listener {
        addresses: mqtt.listen.clone(),
        stack: Stack::PLAIN,
    }];
    if let Some(tls) = &mqtt.tls {
        listeners.push(secured(tls, None)?);
    }
    if let Some(settings) = &mqtt.psk {
        listeners.push(Listener {
            addresses: settings.listen.clone(),
            stack: Stack {
                security: Some(SecurityPlan::Psk(psk::Acceptor::new(keys(mqtt, table)?)?)),
                websocket: None,
            },
        });
    }
    if let Some(settings) = &mqtt.websocket {
        let websocket = Some(Arc::new(fieldgate_websocket::Settings {
            path: settings.path.clone(),
            subprotocol: SUBPROTOCOL.to_owned(),
            origins: settings.origins.clone(),
        }));
        listeners.push(Listener {
            addresses: settings.listen.clone(),
            stack: Stack {
                security: None,
                websocket: websocket.clone(),
            },
        });
        if let Some(tls) = &settings.tls {
            listeners.push(secured(tls, websocket)?);
        }
    }
    Ok(listeners)
}

/// Returns what has files that may change while the node runs.
pub(crate) fn acceptors(listeners: &[Listener]) -> Vec<tls::Acceptor> {
    listeners
        .iter()
        .filter_map(|listener| match &listener.stack.security {
            Some(SecurityPlan::Tls(acceptor)) => Some(acceptor.clone()),
            Some(SecurityPlan::Psk(_)) | None => None,
        })
        .collect()
}

fn directory(mqtt: &Mqtt, table: &DeviceTable) -> Directory {
    let mut directory = Directory::default();
    for (rule, device) in mqtt
        .devices
        .iter()
        .filter_map(|settings| Some((settings.certificate.as_ref()?, table.device(&settings.name)?)))
    {
        directory.insert(rule, Arc::clone(device));
    }
    directory
}

/// Reads every device's key.
fn keys(mqtt: &Mqtt, table: &DeviceTable) -> Result<Vec<DeviceKey>, StartError> {
    let mut keys = Vec::new();
    for settings in &mqtt.devices {
        let (Some(psk), Some(device)) = (&settings.psk, table.device(&settings.name)) else {
            continue;
        };
        let secret = secret_source(&psk.key)
            .read()
            .map_err(|error| unusable(device, &error).hint(error.hint()))?;
        keys.push(DeviceKey {
            identity: psk.identity.clone(),
            key: decode(secret.expose(), device)?,
            device: Arc::clone(device),
        });
    }
    Ok(keys)
}

/// Reads hexadecimal digits. What is refused is not shown.
fn decode(text: &[u8], device: &Device) -> Result<Zeroizing<Vec<u8>>, StartError> {
    let refuse = |reason: &str| {
        unusable(device, &reason).hint(format!(
            "write {} to {} random bytes as hexadecimal digits, such as `openssl rand -hex 32` makes",
            KEY_LEN.start(),
            KEY_LEN.end()
        ))
    };
    // The place is made beforehand: nothing that grows leaves pieces of the key behind.
    let len = HEXLOWER_PERMISSIVE
        .decode_len(text.len())
        .map_err(|_| refuse("it is not an even number of hexadecimal digits"))?;
    if !KEY_LEN.contains(&len) {
        return Err(refuse("it has not the right length"));
    }
    let mut key = Zeroizing::new(vec![0; len]);
    HEXLOWER_PERMISSIVE
        .decode_mut(text, &mut key)
        .map_err(|_| refuse("it is not made of hexadecimal digits"))?;
    Ok(key)
}

fn unusable(device: &Device, error: &dyn std::fmt::Display) -> StartError {
    StartError::new(format!("psk of the device {}: {error}", device.name()))
}

/// MQTT 5.0 §6.
const SUBPROTOCOL: &str = "mqtt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hexadecimal_and_long_enough() {
        let device = Device::new("pump-7", [].into()).unwrap();
        let key = decode(b"000102030405060708090A0b0c0d0e0f", &device).map_err(StartError::into_parts);
        assert_eq!(key.unwrap()[..3], [0, 1, 2]);
        let long = "ab".repeat(64);
        assert_eq!(
            decode(long.as_bytes(), &device).map(|key| key.len()).ok(),
            Some(64)
        );
        let too_long = "ab".repeat(65);
        for text in [
            "",
            "00",
            "000102030405060708090a0b0c0d0e0",
            "zz0102030405060708090a0b0c0d0e0f",
            &too_long,
        ] {
            let (message, hint) = decode(text.as_bytes(), &device).err().unwrap().into_parts();
            assert!(message.contains("pump-7") && hint.is_some(), "{text}");
            assert!(text.is_empty() || !message.contains(text), "{message}");
        }
    }
}
