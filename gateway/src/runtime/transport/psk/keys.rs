//! The keys, found without telling how near a guess was.

use std::sync::Arc;

use aws_lc_rs::hmac;
use fieldgate_adapters::device::Device;
use zeroize::{Zeroize as _, Zeroizing};

use super::DeviceKey;

/// All keys of a listener, in the order of the MACs of their identities.
pub(super) struct Keys {
    mac_key: hmac::Key,
    decoy_key: hmac::Key,
    entries: Vec<Entry>,
}

struct Entry {
    mac: [u8; MAC_LEN],
    key: Zeroizing<Vec<u8>>,
    device: Arc<Device>,
}

impl Keys {
    /// Takes the keys; `secret` is random, of this process, and never stored.
    pub(super) fn new(keys: Vec<DeviceKey>, secret: &[u8; 64]) -> Self {
        let (mac_secret, decoy_secret) = secret.split_at(MAC_LEN);
        let mac_key = hmac::Key::new(hmac::HMAC_SHA256, mac_secret);
        let mut entries: Vec<Entry> = keys
            .into_iter()
            .map(|key| Entry {
                mac: mac(&mac_key, key.identity.as_bytes()),
                key: key.key,
                device: key.device,
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.mac);
        Self {
            mac_key,
            decoy_key: hmac::Key::new(hmac::HMAC_SHA512, decoy_secret),
            entries,
        }
    }

    /// Writes the key of `identity` to the front of `place`, and returns its length and the number of its device. An unknown
    /// identity gets a key that nobody has, always the same one, as long as that of some device, and no number.
    pub(super) fn find(&self, identity: &[u8], place: &mut [u8]) -> (usize, Option<usize>) {
        let mac = mac(&self.mac_key, identity);
        let found = self.entries.binary_search_by(|entry| entry.mac.cmp(&mac)).ok();
        // Made in every case, so that it costs the same.
        let decoy_tag = hmac::sign(&self.decoy_key, identity);
        let mut decoy = Zeroizing::new([0; DECOY_LEN]);
        decoy.copy_from_slice(decoy_tag.as_ref());
        let [first, second, ..] = mac;
        let stand_in = usize::from(u16::from_be_bytes([first, second])).checked_rem(self.entries.len());
        let entry = found.or(stand_in).and_then(|index| self.entries.get(index));
        let len = entry.map_or(DECOY_LEN, |entry| entry.key.len());
        let key: &[u8] = match (found, entry) {
            (Some(_), Some(entry)) => &entry.key,
            (None, _) | (_, None) => &*decoy,
        };
        match (place.get_mut(..len), key.get(..len)) {
            (Some(place), Some(key)) => {
                place.copy_from_slice(key);
                (len, found)
            }
            (None, _) | (_, None) => {
                // A key is never shortened: no key, no handshake.
                place.zeroize();
                (0, None)
            }
        }
    }

    pub(super) fn device(&self, number: usize) -> Option<&Arc<Device>> {
        self.entries.get(number).map(|entry| &entry.device)
    }
}

fn mac(key: &hmac::Key, identity: &[u8]) -> [u8; MAC_LEN] {
    let tag = hmac::sign(key, identity);
    tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
}

const MAC_LEN: usize = 32;
/// The longest key of a device, and what HMAC-SHA-512 gives.
const DECOY_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let key = |name: &str, byte: u8, len: usize| DeviceKey {
            identity: name.to_owned(),
            key: Zeroizing::new(vec![byte; len]),
            device: Arc::new(Device::new(name, [].into()).unwrap()),
        };
        Keys::new(vec![key("a", 1, 16), key("b", 2, 64), key("c", 3, 32)], &[7; 64])
    }

    #[test]
    fn a_known_identity_gets_its_key_and_device() {
        let keys = keys();
        for (identity, byte, len) in [("a", 1, 16), ("b", 2, 64), ("c", 3, 32)] {
            let mut place = [0; 256];
            let (got, number) = keys.find(identity.as_bytes(), &mut place);
            assert_eq!((got, &place[..len]), (len, &*vec![byte; len]));
            assert_eq!(keys.device(number.unwrap()).unwrap().name(), identity);
        }
    }

    #[test]
    fn an_unknown_identity_gets_a_key_of_a_usual_length_that_never_changes() {
        let keys = keys();
        let mut lengths = [0; 65];
        for number in 0..200 {
            let identity = format!("unknown-{number}");
            let (mut one, mut other) = ([0; 256], [0; 256]);
            let (len, device) = keys.find(identity.as_bytes(), &mut one);
            assert_eq!(keys.find(identity.as_bytes(), &mut other), (len, None));
            assert_eq!((device, one), (None, other));
            assert!(
                ![1, 2, 3]
                    .map(|byte| vec![byte; len])
                    .contains(&one[..len].to_vec())
            );
            lengths[len] += 1;
        }
        assert!(
            [16, 32, 64].into_iter().all(|len| lengths[len] > 20),
            "{lengths:?}"
        );
        assert_eq!(lengths.iter().sum::<u32>(), 200);
    }

    #[test]
    fn without_room_there_is_no_key() {
        let mut place = [9; 8];
        assert_eq!(keys().find(b"b", &mut place), (0, None));
        assert_eq!(place, [0; 8]);
    }
}
