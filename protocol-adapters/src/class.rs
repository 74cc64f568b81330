//! How urgent a reading is.

/// The priority of a reading on its way to the collector (PROTOCOL.md §3.1, §9).
///
/// The order is that of urgency: an alarm is the least value and overtakes the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Overtakes the backlog.
    Alarm,
    /// An ordinary reading.
    #[default]
    Normal,
    /// May wait for all others.
    Bulk,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Self; 3] = [Self::Alarm, Self::Normal, Self::Bulk];

    /// Returns the number that stands for the class on the wire, 0 to 2.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Alarm => 0,
            Self::Normal => 1,
            Self::Bulk => 2,
        }
    }

    /// Returns the class that `code` stands for.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Alarm),
            1 => Some(Self::Normal),
            2 => Some(Self::Bulk),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_protocol_text() {
        assert_eq!(Class::ALL.map(Class::code), [0, 1, 2]);
        assert_eq!(
            Class::ALL.map(|class| Class::from_code(class.code())),
            Class::ALL.map(Some)
        );
        assert_eq!(Class::from_code(3), None);
    }
}
