//! The values of the house: identifiers, scopes, redirect URIs, credentials, tokens, keys.
//!
//! Everybody may use this module. It knows no Kubernetes, no HTTP and no runtime: what stands
//! here can be checked without any of them. A value that exists has been checked; the only way
//! to one is a constructor that can refuse, with an error that names what is wrong.

pub mod account;
pub mod client;
pub mod duration;
pub mod keyring;
pub mod owner;
pub mod reason;
pub mod redirect_uri;
pub mod scope;
pub mod text;
pub mod token;

pub use account::Account;
pub use client::{AuthMethod, ClientId, ClientMetadata, GrantType};
pub use keyring::{InstallationId, KeyRing, MasterKey, Sealed};
pub use owner::{Deletion, Owner, OwnerMark};
pub use reason::Reason;
pub use redirect_uri::RedirectUri;
pub use scope::{Scope, ScopeSet};
pub use token::{Lifetime, TokenReply};

pub use secrecy::{ExposeSecret, SecretString};
