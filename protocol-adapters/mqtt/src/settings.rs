//! What a site chooses for its MQTT listener.

use std::{ops::RangeInclusive, time::Duration};

use fieldgate_adapters::topic::TopicFilter;

/// Settings of all sessions of a listener; cannot hold a value out of bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    connect_timeout: Duration,
    maximum_packet_size: u32,
    receive_maximum: u16,
    topic_alias_maximum: u16,
    keep_alive_secs_max: Option<u16>,
    alarm_topics: Vec<TopicFilter>,
    local_topics: Vec<TopicFilter>,
    session_expiry_secs_max: u32,
}

impl Default for Settings {
    /// 10 s to connect, packets of 64,512 bytes, 64 unacknowledged publishes, 16 topic aliases, any keep-alive, no alarms,
    /// no local topics, sessions that outlive their connection by a week at most.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            maximum_packet_size: *Self::MAXIMUM_PACKET_SIZE.end(),
            receive_maximum: 64,
            topic_alias_maximum: 16,
            keep_alive_secs_max: None,
            alarm_topics: Vec::new(),
            local_topics: Vec::new(),
            session_expiry_secs_max: 7 * 24 * 3600,
        }
    }
}

impl Settings {
    /// Bounds of the connect timeout.
    pub const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
    /// Bounds of the maximum packet size in bytes. A packet of the largest size always fits into a reading with the longest
    /// device name (PROTOCOL.md §9, §14), so no client of MQTT 3.1.1 can send what could never be acknowledged.
    pub const MAXIMUM_PACKET_SIZE: RangeInclusive<u32> = 1_024..=64_512;
    /// Bounds of the receive maximum.
    pub const RECEIVE_MAXIMUM: RangeInclusive<u16> = 1..=4_096;
    /// Bounds of the topic alias maximum; 0 switches aliases off.
    pub const TOPIC_ALIAS_MAXIMUM: RangeInclusive<u16> = 0..=256;
    /// Bounds of the longest keep-alive in seconds.
    pub const KEEP_ALIVE_SECS_MAX: RangeInclusive<u16> = 5..=u16::MAX;

    /// Sets how long a client may take until its CONNECT is answered.
    ///
    /// # Errors
    /// [`SettingsError`] outside [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT).
    pub fn with_connect_timeout(self, connect_timeout: Duration) -> Result<Self, SettingsError> {
        let secs = |duration: &Duration| duration.as_secs();
        if !Self::CONNECT_TIMEOUT.contains(&connect_timeout) {
            return Err(SettingsError {
                setting: "connect timeout in seconds",
                value: secs(&connect_timeout),
                min: secs(Self::CONNECT_TIMEOUT.start()),
                max: secs(Self::CONNECT_TIMEOUT.end()),
            });
        }
        Ok(Self {
            connect_timeout,
            ..self
        })
    }

    /// Sets the bytes of the largest packet a client may send (MQTT 5.0 §3.2.2.3.6).
    ///
    /// # Errors
    /// [`SettingsError`] outside [`MAXIMUM_PACKET_SIZE`](Self::MAXIMUM_PACKET_SIZE).
    pub fn with_maximum_packet_size(self, maximum_packet_size: u32) -> Result<Self, SettingsError> {
        within(
            "maximum packet size in bytes",
            maximum_packet_size,
            &Self::MAXIMUM_PACKET_SIZE,
        )?;
        Ok(Self {
            maximum_packet_size,
            ..self
        })
    }

    /// Sets how many publishes of a client may be unacknowledged (MQTT 5.0 §3.2.2.3.3). An MQTT 3.1.1 client, which cannot
    /// be told, is not read while it has that many.
    ///
    /// # Errors
    /// [`SettingsError`] outside [`RECEIVE_MAXIMUM`](Self::RECEIVE_MAXIMUM).
    pub fn with_receive_maximum(self, receive_maximum: u16) -> Result<Self, SettingsError> {
        within("receive maximum", receive_maximum, &Self::RECEIVE_MAXIMUM)?;
        Ok(Self {
            receive_maximum,
            ..self
        })
    }

    /// Sets how many topic aliases a client may define (MQTT 5.0 §3.2.2.3.8).
    ///
    /// # Errors
    /// [`SettingsError`] outside [`TOPIC_ALIAS_MAXIMUM`](Self::TOPIC_ALIAS_MAXIMUM).
    pub fn with_topic_alias_maximum(self, topic_alias_maximum: u16) -> Result<Self, SettingsError> {
        within(
            "topic alias maximum",
            topic_alias_maximum,
            &Self::TOPIC_ALIAS_MAXIMUM,
        )?;
        Ok(Self {
            topic_alias_maximum,
            ..self
        })
    }

    /// Sets the longest keep-alive in seconds that an MQTT 5.0 client is granted (MQTT 5.0 §3.2.2.3.14); a client that wants a
    /// longer one, or none, is told this one. `None` grants every wish. MQTT 3.1.1 cannot tell, so its clients get what they want.
    ///
    /// # Errors
    /// [`SettingsError`] outside [`KEEP_ALIVE_SECS_MAX`](Self::KEEP_ALIVE_SECS_MAX).
    pub fn with_keep_alive_secs_max(self, keep_alive_secs_max: Option<u16>) -> Result<Self, SettingsError> {
        if let Some(secs) = keep_alive_secs_max {
            within("longest keep-alive in seconds", secs, &Self::KEEP_ALIVE_SECS_MAX)?;
        }
        Ok(Self {
            keep_alive_secs_max,
            ..self
        })
    }

    /// Sets the topics whose readings are of the class alarm.
    #[must_use]
    pub fn with_alarm_topics(self, alarm_topics: Vec<TopicFilter>) -> Self {
        Self { alarm_topics, ..self }
    }

    /// Sets the topics that are passed on between devices and not journalled.
    #[must_use]
    pub fn with_local_topics(self, local_topics: Vec<TopicFilter>) -> Self {
        Self { local_topics, ..self }
    }

    /// Sets the longest time in seconds that a session outlives its connection (MQTT 5.0 §3.2.2.3.2); 0 ends every session with
    /// its connection, `u32::MAX` sets no bound. It is also the time for clients of MQTT 3.1.1 without Clean Session.
    #[must_use]
    pub fn with_session_expiry_secs_max(self, session_expiry_secs_max: u32) -> Self {
        Self {
            session_expiry_secs_max,
            ..self
        }
    }

    /// Returns how long a client may take until its CONNECT is answered.
    #[must_use]
    pub const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Returns the bytes of the largest packet a client may send.
    #[must_use]
    pub const fn maximum_packet_size(&self) -> u32 {
        self.maximum_packet_size
    }

    /// Returns how many publishes of a client may be unacknowledged.
    #[must_use]
    pub const fn receive_maximum(&self) -> u16 {
        self.receive_maximum
    }

    /// Returns how many topic aliases a client may define.
    #[must_use]
    pub const fn topic_alias_maximum(&self) -> u16 {
        self.topic_alias_maximum
    }

    /// Returns the longest keep-alive in seconds that an MQTT 5.0 client is granted.
    #[must_use]
    pub const fn keep_alive_secs_max(&self) -> Option<u16> {
        self.keep_alive_secs_max
    }

    /// Returns the longest time in seconds that a session outlives its connection.
    #[must_use]
    pub const fn session_expiry_secs_max(&self) -> u32 {
        self.session_expiry_secs_max
    }

    /// Returns whether messages of `topic` are passed on between devices only.
    #[must_use]
    pub fn is_local(&self, topic: &str) -> bool {
        self.local_topics.iter().any(|filter| filter.matches(topic))
    }

    /// Returns whether readings of `topic` are alarms.
    #[must_use]
    pub fn is_alarm(&self, topic: &str) -> bool {
        self.alarm_topics.iter().any(|filter| filter.matches(topic))
    }
}

fn within<T>(setting: &'static str, value: T, bounds: &RangeInclusive<T>) -> Result<(), SettingsError>
where
    T: PartialOrd + Copy + Into<u64>,
{
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(SettingsError {
        setting,
        value: value.into(),
        min: (*bounds.start()).into(),
        max: (*bounds.end()).into(),
    })
}

/// A setting is out of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {setting} is {value}, outside {min}..={max}")]
pub struct SettingsError {
    /// Which setting, with its unit.
    pub setting: &'static str,
    /// The value given.
    pub value: u64,
    /// The smallest value.
    pub min: u64,
    /// The largest value.
    pub max: u64,
}

impl SettingsError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        "choose a value within the bounds, or leave the setting out"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_ends_of_the_bounds_and_nothing_beyond() {
        let settings = Settings::default;
        for size in [1_024, 64_512] {
            assert_eq!(
                settings()
                    .with_maximum_packet_size(size)
                    .unwrap()
                    .maximum_packet_size(),
                size
            );
        }
        for maximum in [1, 4_096] {
            assert_eq!(
                settings()
                    .with_receive_maximum(maximum)
                    .unwrap()
                    .receive_maximum(),
                maximum
            );
        }
        for maximum in [0, 256] {
            assert_eq!(
                settings()
                    .with_topic_alias_maximum(maximum)
                    .unwrap()
                    .topic_alias_maximum(),
                maximum
            );
        }
        for secs in [None, Some(5), Some(65_535)] {
            assert_eq!(
                settings()
                    .with_keep_alive_secs_max(secs)
                    .unwrap()
                    .keep_alive_secs_max(),
                secs
            );
        }
        for secs in [1, 60] {
            let timeout = Duration::from_secs(secs);
            assert_eq!(
                settings()
                    .with_connect_timeout(timeout)
                    .unwrap()
                    .connect_timeout(),
                timeout
            );
        }
        assert!(settings().with_maximum_packet_size(1_023).is_err());
        assert!(settings().with_maximum_packet_size(64_513).is_err());
        assert!(settings().with_receive_maximum(0).is_err());
        assert!(settings().with_receive_maximum(4_097).is_err());
        assert!(settings().with_topic_alias_maximum(257).is_err());
        assert!(settings().with_keep_alive_secs_max(Some(4)).is_err());
        assert!(
            settings()
                .with_connect_timeout(Duration::from_millis(999))
                .is_err()
        );
        let error = settings()
            .with_connect_timeout(Duration::from_secs(61))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the connect timeout in seconds is 61, outside 1..=60"
        );
    }
}
