//! The field devices that may log in, and their rights.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{password::PasswordHash, reading::DEVICE_LEN_MAX, scram::ScramKeys, topic::TopicFilter};

/// A field device as sessions know it: its name, what it may publish, and what it may subscribe to.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    name: Box<str>,
    topics: Arc<[TopicFilter]>,
    subscribe: Arc<[TopicFilter]>,
}

impl Device {
    /// Makes a device that may publish, and subscribe to, the topics that one of `topics` stands for; none means nothing.
    ///
    /// # Errors
    /// [`DeviceTableError::Name`] if `name` is empty, longer than [`DEVICE_LEN_MAX`] bytes or contains U+0000.
    pub fn new(name: &str, topics: Arc<[TopicFilter]>) -> Result<Self, DeviceTableError> {
        if name.is_empty() || name.len() > DEVICE_LEN_MAX || name.contains('\0') {
            return Err(DeviceTableError::Name {
                name: shortened(name),
            });
        }
        Ok(Self {
            name: name.into(),
            subscribe: Arc::clone(&topics),
            topics,
        })
    }

    /// Lets the device subscribe to what one of `filters` covers, and to nothing else.
    #[must_use]
    pub fn with_subscribe(self, filters: Arc<[TopicFilter]>) -> Self {
        Self {
            subscribe: filters,
            ..self
        }
    }

    /// Returns the name, 1 to [`DEVICE_LEN_MAX`] bytes; it is what readings carry.
    #[must_use]
    pub const fn name(&self) -> &str {
        &self.name
    }

    /// Returns the topic filters it may publish to.
    #[must_use]
    pub fn topics(&self) -> &[TopicFilter] {
        &self.topics
    }

    /// Returns whether the device may publish to `topic`. Nobody writes below `$SYS`, which is the gateway's own.
    #[must_use]
    pub fn may_publish(&self, topic: &str) -> bool {
        self.topics.iter().any(|filter| filter.matches(topic)) && !is_own(topic)
    }

    /// Returns whether the device may subscribe to the well-formed topic filter `filter`: one of its filters must cover it whole.
    #[must_use]
    pub fn may_subscribe(&self, filter: &str) -> bool {
        self.subscribe.iter().any(|allowed| allowed.covers(filter))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name)
            .field("topics", &self.topics)
            .field("subscribe", &self.subscribe)
            .finish()
    }
}

/// One entry of the device table: a device and how it logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user name the device presents; unique in the table.
    pub username: String,
    /// The hash of its password.
    pub password: PasswordHash,
    /// Who it is then; its name is unique in the table.
    pub device: Device,
}

/// Every device that may log in, found by user name. Immutable: a change makes a new table.
#[derive(Debug, Default)]
pub struct DeviceTable {
    logins: Vec<TableEntry>,
    by_username: BTreeMap<Box<str>, usize>,
    names: BTreeMap<Box<str>, Arc<Device>>,
}

#[derive(Debug)]
struct TableEntry {
    password: PasswordHash,
    device: Arc<Device>,
}

impl DeviceTable {
    /// Makes a table of `logins`.
    ///
    /// # Errors
    /// [`DeviceTableError`] names the first entry that is wrong or stands twice.
    pub fn new(logins: Vec<Login>) -> Result<Self, DeviceTableError> {
        if logins.len() > DEVICES_MAX {
            return Err(DeviceTableError::TooMany { count: logins.len() });
        }
        let mut table = Self::default();
        for login in logins {
            let Login {
                username,
                password,
                device,
            } = login;
            if username.is_empty() || username.len() > USERNAME_LEN_MAX || username.contains('\0') {
                return Err(DeviceTableError::Username {
                    username: shortened(&username),
                });
            }
            let device = table.add_name(device)?;
            if table.by_username.contains_key(username.as_str()) {
                return Err(DeviceTableError::UsernameTwice { username });
            }
            table.by_username.insert(username.into(), table.logins.len());
            table.logins.push(TableEntry { password, device });
        }
        Ok(table)
    }

    /// Adds devices that have no password: their connection itself proves who they are.
    ///
    /// # Errors
    /// [`DeviceTableError`] names the first that stands twice, or says that there are too many.
    pub fn with_others(mut self, devices: Vec<Device>) -> Result<Self, DeviceTableError> {
        let count = self.names.len().saturating_add(devices.len());
        if count > DEVICES_MAX {
            return Err(DeviceTableError::TooMany { count });
        }
        for device in devices {
            self.add_name(device)?;
        }
        Ok(self)
    }

    fn add_name(&mut self, device: Device) -> Result<Arc<Device>, DeviceTableError> {
        let device = Arc::new(device);
        match self.names.insert(device.name().into(), Arc::clone(&device)) {
            None => Ok(device),
            Some(_) => Err(DeviceTableError::NameTwice {
                name: device.name().to_owned(),
            }),
        }
    }

    /// Returns how many devices with a password are in the table.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.logins.len()
    }

    /// Returns whether the table has no device with a password.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.logins.is_empty()
    }

    /// Returns whether a device of the table is called `name`.
    #[must_use]
    pub fn contains_name(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Returns the device called `name`.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Arc<Device>> {
        self.names.get(name)
    }

    /// Returns what SCRAM needs of a user, and the device, if the user's entry is of that scheme.
    pub(crate) fn scram(&self, username: &str) -> Option<(ScramKeys, &Arc<Device>)> {
        let entry = &self.logins[self.index_of(username)?];
        Some((entry.password.scram_keys()?, &entry.device))
    }

    pub(crate) fn index_of(&self, username: &str) -> Option<usize> {
        self.by_username.get(username).copied()
    }

    /// Returns password hash and device of the entry at `index`, which must come from this table.
    pub(crate) fn entry(&self, index: usize) -> (&PasswordHash, &Arc<Device>) {
        let entry = &self.logins[index];
        (&entry.password, &entry.device)
    }

    pub(crate) fn usernames(&self) -> impl Iterator<Item = (&str, usize)> {
        self.by_username
            .iter()
            .map(|(username, index)| (&**username, *index))
    }
}

/// Devices in a table at most.
pub const DEVICES_MAX: usize = 65_536;
/// Bytes of a user name at most.
pub const USERNAME_LEN_MAX: usize = 255;

/// What is wrong with a device table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceTableError {
    /// There are more than [`DEVICES_MAX`] devices.
    #[error("the device table has {count} devices, at most 65536 are allowed")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A device's name is empty, too long or contains U+0000.
    #[error("the device name {name:?} is not 1 to 255 bytes without U+0000")]
    Name {
        /// The name's beginning.
        name: String,
    },
    /// A user name is empty, too long or contains U+0000.
    #[error("the user name {username:?} is not 1 to 255 bytes without U+0000")]
    Username {
        /// The user name's beginning.
        username: String,
    },
    /// Two devices have the same name.
    #[error("the device name {name:?} stands twice in the device table")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// Two devices have the same user name.
    #[error("the user name {username:?} stands twice in the device table")]
    UsernameTwice {
        /// The user name.
        username: String,
    },
}

impl DeviceTableError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::TooMany { .. } => "split the site between several gateways",
            Self::Name { .. } | Self::Username { .. } => "choose a short name",
            Self::NameTwice { .. } | Self::UsernameTwice { .. } => {
                "give every device a name and user name of its own"
            }
        }
    }
}

/// Returns whether a topic is below `$SYS`.
fn is_own(topic: &str) -> bool {
    topic
        .strip_prefix("$SYS")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns the first characters of a text that may be far too long to show.
fn shortened(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::password::hash_password;

    /// Entropy for tests: every byte is one more than the one before.
    #[derive(Default)]
    pub(crate) struct Counting(u8);

    impl fieldgate_proto::entropy::Entropy for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            for byte in bytes {
                self.0 = self.0.wrapping_add(1);
                *byte = self.0;
            }
        }
    }

    pub(crate) fn login(username: &str, password: &str, iterations: u32, name: &str) -> Login {
        let topics = [TopicFilter::new(&format!("{name}/#")).unwrap()];
        Login {
            username: username.to_owned(),
            password: hash_password(password.as_bytes(), iterations, &mut Counting::default()).unwrap(),
            device: Device::new(name, topics.into()).unwrap(),
        }
    }

    #[test]
    fn refuses_entries_that_are_wrong_or_stand_twice() {
        let long = "n".repeat(256);
        assert!(matches!(
            Device::new("", [].into()),
            Err(DeviceTableError::Name { .. })
        ));
        assert!(matches!(
            Device::new("a\0", [].into()),
            Err(DeviceTableError::Name { .. })
        ));
        let DeviceTableError::Name { name } = Device::new(&long, [].into()).unwrap_err() else {
            panic!()
        };
        assert_eq!(name.len(), 32);
        let table = |logins: Vec<Login>| DeviceTable::new(logins).map(|table| table.len());
        assert_eq!(table(vec![]), Ok(0));
        assert_eq!(
            table(vec![login("u", "p", 1, "d"), login("v", "p", 1, "e")]),
            Ok(2)
        );
        assert_eq!(
            table(vec![login("u", "p", 1, "d"), login("u", "p", 1, "e")]),
            Err(DeviceTableError::UsernameTwice {
                username: "u".to_owned()
            })
        );
        assert_eq!(
            table(vec![login("u", "p", 1, "d"), login("v", "p", 1, "d")]),
            Err(DeviceTableError::NameTwice { name: "d".to_owned() })
        );
        for bad in ["", "a\0b", &long] {
            assert!(matches!(
                table(vec![login(bad, "p", 1, "d")]),
                Err(DeviceTableError::Username { .. })
            ));
        }
    }

    #[test]
    fn a_device_may_publish_what_its_filters_stand_for_and_nothing_else() {
        let device = Device::new("d", ["a/+", "b/#"].map(|f| TopicFilter::new(f).unwrap()).into()).unwrap();
        assert!(device.may_publish("a/x"));
        assert!(device.may_publish("b/x/y"));
        assert!(!device.may_publish("a/x/y"));
        assert!(!device.may_publish("c"));
        assert!(!Device::new("d", [].into()).unwrap().may_publish("a"));
    }

    #[test]
    fn a_device_subscribes_to_its_own_topics_unless_others_are_named() {
        let filters = |texts: &[&str]| -> Arc<[TopicFilter]> {
            texts.iter().map(|text| TopicFilter::new(text).unwrap()).collect()
        };
        let device = Device::new("d", filters(&["d/#"])).unwrap();
        assert!(device.may_subscribe("d/#") && device.may_subscribe("d/+/x"));
        assert!(!device.may_subscribe("#") && !device.may_subscribe("e"));
        let device = device.with_subscribe(filters(&["e/+"]));
        assert!(device.may_subscribe("e/x") && !device.may_subscribe("e/#"));
        assert!(!device.may_subscribe("d/x") && device.may_publish("d/x"));
    }

    #[test]
    fn nobody_writes_what_the_gateway_says_of_itself() {
        let everything: Arc<[TopicFilter]> = ["#", "$SYS/#", "$SYSTEM"]
            .map(|text| TopicFilter::new(text).unwrap())
            .into();
        let device = Device::new("d", everything).unwrap();
        assert!(!device.may_publish("$SYS") && !device.may_publish("$SYS/uptime"));
        assert!(device.may_publish("$SYSTEM") && device.may_subscribe("$SYS/#"));
    }

    #[test]
    fn finds_devices_by_name() {
        let table = DeviceTable::new(vec![login("u", "p", 1, "d"), login("v", "p", 1, "e")]).unwrap();
        assert_eq!(table.device("e").map(|device| device.name()), Some("e"));
        assert!(table.device("u").is_none());
        assert!(table.contains_name("d"));
        let other = |name: &str| vec![Device::new(name, [].into()).unwrap()];
        let table = table.with_others(other("f")).unwrap();
        assert_eq!((table.len(), table.contains_name("f")), (2, true));
        assert_eq!(table.index_of("f"), None, "nobody logs in as it");
        assert!(table.with_others(other("d")).is_err());
    }
}
