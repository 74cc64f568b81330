//! Who may do what: policies in the Cedar language, checked once against fieldgate's schema, asked once per channel or stream.
//!
//! ```
//! use fieldgate_policy::{Action, Context, Policy, Principal, Request, Resource, Service};
//! use fieldgate_proto::identity::Identifier;
//!
//! let policy = Policy::built_in();
//! let mut principal = Principal::new(Identifier::from_bytes([7; 32]));
//! let connect = |principal: &Principal| {
//!     Request::new(
//!         principal.clone(),
//!         Action::Connect,
//!         Resource::Service(Service::Uplink),
//!         Context::default(),
//!     )
//! };
//! assert!(!policy.decide(&connect(&principal)?).allowed);
//! principal.member = true;
//! assert!(policy.decide(&connect(&principal)?).allowed);
//! # Ok::<(), fieldgate_policy::RequestError>(())
//! ```
//!
//! - [`check()`] turns a text into a [`Policy`] and says everything that is wrong with it.
//! - [`Policy::decide`] answers; [`Policy::explain`] says why.
//! - What no rule permits is denied; a rule that forbids wins; a rule that could forbid and cannot be evaluated forbids.
//!
//! The crate does no I/O and knows neither channels nor credentials: whoever asks says what is known about the principal.
#![forbid(unsafe_code)]

mod built_in;
mod check;
mod clause;
mod explain;
mod lexer;
mod policy;
mod problem;
mod request;
mod rules;
mod source;
mod translate;
mod vocabulary;
mod word;

pub use check::{Checked, SIZE_MAX, check};
pub use explain::{Explanation, NearMiss, RuleShown, Verdict};
pub use policy::{Decision, Policy, PolicyId, RuleError};
pub use problem::{Colour, Problem, Problems, Severity};
pub use request::{
    Action, Context, KeyStorage, LinkKind, Principal, Request, RequestError, Resource, ResourceError,
    ResourceKind, Revocation, Service, StreamFacts, TicketRights, TimeQuality, Weekday,
};
pub use rules::RULES_MAX;
pub use word::UnknownWord;

/// What policies can speak about, in Cedar's human-readable schema language.
pub const SCHEMA: &str = include_str!("fieldgate.cedarschema");

/// The policy of a node whose file names no other.
pub const BUILT_IN: &str = include_str!("built_in.cedar");
