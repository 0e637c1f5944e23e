//! The one HTTP client of the operator: every call that leaves the process goes through it.
//!
//! A [`Guard`] holds what the operator's configuration allows; [`Guard::client`] gives an
//! [`HttpClient`] for one trust and one set of roots; [`HttpClient::send`] sends one request and
//! says exactly how far it came. Who may be called:
//!
//! | trust | scheme | address | port |
//! |---|---|---|---|
//! | [`Trust::Guarded`]: a tenant or discovery named it | `https` | public | 443, and those that the [`AllowList`] opens |
//! | the same, an entry of the [`AllowList`] matches | `https`, and `http` if the entry says so | any | any, or the entry's |
//! | [`Trust::Trusted`]: the platform team named it | `https`, `http` | any | any |
//!
//! 8443 and its like take an entry: behind odd ports of public addresses stand kubelets, databases
//! and admin interfaces, and every tenant could otherwise knock there in the operator's name.
//!
//! A refusal comes before any connection, and is the same whether there is such a host, whether
//! something listens there, and what: conditions are no port scanner.
//!
//! The addresses that are checked are the ones that are connected to: the check sits in the
//! resolver that the connection is made with, so a name can't change its mind in between.
//! What comes over a connection is bounded, whatever it is.
//! Nothing follows a redirect or reads a proxy from the environment. No compressed body is asked for;
//! one that comes all the same is decoded within the limit that a plain one has.

pub mod address;
pub mod allow;
mod classify;
pub mod client;
mod coding;
mod connect;
pub mod error;
mod json;
pub mod message;
mod resolve;
pub mod tls;
pub mod url_policy;

pub use allow::{AllowList, AllowListError};
pub use client::{Guard, GuardError, GuardOptions, Heard, HttpClient};
pub use coding::CodingError;
pub use error::{NoAnswer, NotSent, RefusedReason, SendError, TlsFault};
pub use http::{Method, header};
pub use json::json;
pub use message::{BadHeader, Request, Response};
pub use tls::{CaBundle, CaBundleError, ClientIdentity, ClientIdentityError};
pub use url_policy::Trust;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod name_server;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tls_tests;
