//! What the store keeps about members, tickets and the revoked, and its encoding.
//!
//! ```text
//! grant   = u8 rights (bit 0 enroller, bit 1 administrator) | text8 name | u8 n, n × (text8 key | text8 value)
//!           | u8 n, n × text8 pattern to hold | u8 n, n × text8 pattern to reach
//! member  = u8 version (1) | u8 source (0 file | 1 added | 2 ticket, 16 id) | u64 since | u64 serial | u64 not_after | grant
//! ticket  = u8 version (1) | u8 revoked | 32 ticket key | u64 issued_at | u64 not_after | u32 uses | u32 used | actor | grant
//! revoked = u8 version (1) | u64 at | u64 not_after | text8 reason | u8 present | (present 1) bytes16 member
//! ```
//! `actor` is that of the log.

use std::{collections::BTreeMap, fmt};

use fieldgate_proto::{
    relay::NamePattern,
    trust::Rights,
    wire::{self, Reader, WireError},
};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::log::{Actor, TicketId, put_actor, take_actor};

const VERSION: u8 = 1;

/// What a credential says about its subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Name of the member; empty in a ticket that leaves it to the subject.
    pub(crate) name: String,
    /// Attributes, for policies.
    pub(crate) attributes: BTreeMap<String, String>,
    /// Names at relays it may hold.
    pub(crate) hold: Vec<NamePattern>,
    /// Names at relays it may reach.
    pub(crate) reach: Vec<NamePattern>,
    /// What it may do at the authority.
    pub(crate) rights: Rights,
}

/// How an identity became a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The authority's file names it.
    File,
    /// An administrator added it.
    Added,
    /// It enrolled with a ticket.
    Ticket(TicketId),
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// What it is granted.
    pub(crate) grant: Grant,
    /// How it became one.
    pub(crate) source: Source,
    /// Since when, seconds since 1970.
    pub(crate) since: u64,
    /// Serial of its newest credential, 0 if it has had none.
    pub(crate) serial: u64,
    /// The latest end of any of its credentials, seconds since 1970.
    pub(crate) not_after: u64,
}

/// A ticket as its authority knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TicketRecord {
    /// Who holds it can enrol.
    pub(crate) key: StoredKey,
    /// Nobody may use it any more.
    pub(crate) revoked: bool,
    /// Seconds since 1970.
    pub(crate) issued_at: u64,
    /// Seconds since 1970.
    pub(crate) not_after: u64,
    /// How many identities may enrol with it.
    pub(crate) uses: u32,
    /// How many have.
    pub(crate) used: u32,
    /// Who issued it.
    pub(crate) issuer: Actor,
    /// What it grants.
    pub(crate) grant: Grant,
}

/// An identity that was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revoked {
    /// When, seconds since 1970.
    pub(crate) at: u64,
    /// The latest end of any of its credentials, seconds since 1970.
    pub(crate) not_after: u64,
    /// What the operator said.
    pub(crate) reason: String,
    /// What it was, if it was a member.
    pub(crate) member: Option<Member>,
}

/// A ticket key on its way from and to the store.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct StoredKey(pub(crate) [u8; 32]);

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredKey(..)")
    }
}

impl Grant {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.rights.enroller) | u8::from(self.rights.administrator) << 1);
        wire::put_bytes8(out, self.name.as_bytes());
        put_count(out, self.attributes.len());
        for (key, value) in &self.attributes {
            wire::put_bytes8(out, key.as_bytes());
            wire::put_bytes8(out, value.as_bytes());
        }
        for patterns in [&self.hold, &self.reach] {
            put_count(out, patterns.len());
            for pattern in patterns {
                wire::put_bytes8(out, pattern.to_string().as_bytes());
            }
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let rights = reader.u8("rights")?;
        if rights > 3 {
            return Err(value("rights", rights));
        }
        let name = reader.text8("name")?.to_owned();
        let mut attributes = BTreeMap::new();
        for _ in 0..reader.u8("number of attributes")? {
            let key = reader.text8("attribute")?.to_owned();
            attributes.insert(key, reader.text8("value of an attribute")?.to_owned());
        }
        Ok(Self {
            name,
            attributes,
            hold: take_patterns(reader)?,
            reach: take_patterns(reader)?,
            rights: Rights {
                enroller: rights & 1 != 0,
                administrator: rights & 2 != 0,
            },
        })
    }
}

impl Member {
    /// Returns the encoding.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self.source {
            Source::File => out.push(0),
            Source::Added => out.push(1),
            Source::Ticket(id) => {
                out.push(2);
                out.extend_from_slice(&id);
            }
        }
        for number in [self.since, self.serial, self.not_after] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        self.grant.put(&mut out);
        out
    }

    /// Reads an encoding.
    ///
    /// # Errors
    /// [`WireError`] for anything that [`Member::encode`] does not write.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        take_version(&mut reader)?;
        let source = match reader.u8("source")? {
            0 => Source::File,
            1 => Source::Added,
            2 => Source::Ticket(reader.array("ticket")?),
            other => return Err(value("source", other)),
        };
        let member = Self {
            source,
            since: reader.u64("since")?,
            serial: reader.u64("serial")?,
            not_after: reader.u64("not_after")?,
            grant: Grant::take(&mut reader)?,
        };
        reader.finish()?;
        Ok(member)
    }
}

impl TicketRecord {
    /// Returns the encoding.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.revoked)];
        out.extend_from_slice(&self.key.0);
        out.extend_from_slice(&self.issued_at.to_be_bytes());
        out.extend_from_slice(&self.not_after.to_be_bytes());
        out.extend_from_slice(&self.uses.to_be_bytes());
        out.extend_from_slice(&self.used.to_be_bytes());
        put_actor(&mut out, self.issuer);
        self.grant.put(&mut out);
        out
    }

    /// Reads an encoding.
    ///
    /// # Errors
    /// [`WireError`] for anything that [`TicketRecord::encode`] does not write.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        take_version(&mut reader)?;
        let ticket = Self {
            revoked: take_bool(&mut reader, "revoked")?,
            key: StoredKey(reader.array("ticket key")?),
            issued_at: reader.u64("issued_at")?,
            not_after: reader.u64("not_after")?,
            uses: reader.u32("uses")?,
            used: reader.u32("used")?,
            issuer: take_actor(&mut reader)?,
            grant: Grant::take(&mut reader)?,
        };
        reader.finish()?;
        Ok(ticket)
    }
}

impl Revoked {
    /// Returns the encoding.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.at.to_be_bytes());
        out.extend_from_slice(&self.not_after.to_be_bytes());
        wire::put_bytes8(&mut out, self.reason.as_bytes());
        out.push(u8::from(self.member.is_some()));
        if let Some(member) = &self.member {
            wire::put_bytes16(&mut out, &member.encode());
        }
        out
    }

    /// Reads an encoding.
    ///
    /// # Errors
    /// [`WireError`] for anything that [`Revoked::encode`] does not write.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        take_version(&mut reader)?;
        let at = reader.u64("at")?;
        let not_after = reader.u64("not_after")?;
        let reason = reader.text8("reason")?.to_owned();
        let member = if take_bool(&mut reader, "present")? {
            Some(Member::decode(reader.bytes16("member")?)?)
        } else {
            None
        };
        reader.finish()?;
        Ok(Self {
            at,
            not_after,
            reason,
            member,
        })
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.push(u8::try_from(count).expect("orders are checked against the bounds of a credential"));
}

fn take_patterns(reader: &mut Reader<'_>) -> Result<Vec<NamePattern>, WireError> {
    let count = reader.u8("number of patterns")?;
    (0..count)
        .map(|_| {
            let text = reader.text8("pattern")?;
            text.parse().map_err(|_| WireError::Value {
                field: "pattern",
                value: text.len() as u64,
            })
        })
        .collect()
}

fn take_version(reader: &mut Reader<'_>) -> Result<(), WireError> {
    match reader.u8("record version")? {
        VERSION => Ok(()),
        other => Err(value("record version", other)),
    }
}

fn take_bool(reader: &mut Reader<'_>, field: &'static str) -> Result<bool, WireError> {
    match reader.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(value(field, other)),
    }
}

fn value(field: &'static str, value: u8) -> WireError {
    WireError::Value {
        field,
        value: u64::from(value),
    }
}

#[cfg(test)]
mod tests {
    use fieldgate_proto::identity::Identifier;
    use proptest::prelude::*;

    use super::*;

    fn grant() -> impl Strategy<Value = Grant> {
        let attributes = proptest::collection::btree_map("[a-z]{1,12}", ".{0,20}", 0..32);
        let pattern = || {
            "[a-z0-9-]{0,20}\\*|[a-z0-9-]{1,20}"
                .prop_map(|text| text.parse::<NamePattern>().expect("the text is a pattern"))
        };
        let patterns = || proptest::collection::vec(pattern(), 0..16);
        (
            "[a-z0-9-]{0,63}",
            attributes,
            patterns(),
            patterns(),
            any::<(bool, bool)>(),
        )
            .prop_map(
                |(name, attributes, hold, reach, (enroller, administrator))| Grant {
                    name,
                    attributes,
                    hold,
                    reach,
                    rights: Rights {
                        enroller,
                        administrator,
                    },
                },
            )
    }

    fn member() -> impl Strategy<Value = Member> {
        let source = prop_oneof![
            Just(Source::File),
            Just(Source::Added),
            any::<TicketId>().prop_map(Source::Ticket)
        ];
        (grant(), source, any::<(u64, u64, u64)>()).prop_map(|(grant, source, (since, serial, not_after))| {
            Member {
                grant,
                source,
                since,
                serial,
                not_after,
            }
        })
    }

    fn ticket() -> impl Strategy<Value = TicketRecord> {
        let issuer = prop_oneof![
            Just(Actor::Authority),
            any::<u32>().prop_map(Actor::User),
            any::<[u8; 32]>().prop_map(|id| Actor::Node(Identifier::from_bytes(id))),
        ];
        (
            grant(),
            issuer,
            any::<[u8; 32]>(),
            any::<bool>(),
            any::<(u64, u64, u32, u32)>(),
        )
            .prop_map(
                |(grant, issuer, key, revoked, (issued_at, not_after, uses, used))| TicketRecord {
                    key: StoredKey(key),
                    revoked,
                    issued_at,
                    not_after,
                    uses,
                    used,
                    issuer,
                    grant,
                },
            )
    }

    proptest! {
        #[test]
        fn members_come_back(member in member()) {
            prop_assert_eq!(Member::decode(&member.encode()), Ok(member));
        }

        #[test]
        fn tickets_come_back(ticket in ticket()) {
            prop_assert_eq!(TicketRecord::decode(&ticket.encode()), Ok(ticket));
        }

        #[test]
        fn the_revoked_come_back(member in proptest::option::of(member()), at: u64, not_after: u64, reason in ".{0,60}") {
            let revoked = Revoked { at, not_after, reason, member };
            prop_assert_eq!(Revoked::decode(&revoked.encode()), Ok(revoked));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Member::decode(&bytes);
            let _ = TicketRecord::decode(&bytes);
            let _ = Revoked::decode(&bytes);
        }
    }

    #[test]
    fn a_ticket_key_is_not_printed() {
        assert_eq!(format!("{:?}", StoredKey([7; 32])), "StoredKey(..)");
    }
}
