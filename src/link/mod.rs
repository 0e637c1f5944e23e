//! The way through the house, one for every link and every reason:
//!
//! ```text
//! watch event → validate → observe → decide → execute → project status → requeue
//!               pure       I/O       pure     I/O       pure, then a patch if it differs
//! ```
//!
//! `validate` comes before `observe` since it says what to look at; a deletion skips it, so that a
//! bad spec can't block one.
//!
//! | step | file |
//! |---|---|
//! | the driver of one pass | [`pass`]; what is said while one waits, [`demote`] |
//! | the spec, checked | [`validate`] |
//! | what was found | [`observe`], [`facts`] |
//! | what is to be done | [`mod@decide`], [`plan`], and what both steps derive from keys, [`derive`] |
//! | doing it | [`mod@execute`], [`secrets`], [`handover`], [`store`] |
//! | saying it | [`status`], [`problem`] |
//! | values on the way | [`claim`], [`identity`], [`grant`], [`kept_client`], [`lend`], [`unread`], [`orphans`], [`content`], [`template`] |
//! | providers | [`providers`], [`claimed`], [`credentials`], [`mod@connect`], [`connections`], [`provider_pass`], [`bootstrap`] |
//! | what passes share | [`context`], [`own`], [`taken`], [`discoveries`], [`shared_read`], [`held`], [`installation`], [`metrics`] |
//! | a person connects a link | [`consent`] |
//! | when | [`run`], [`cache`], whose turn it is to ask a host for a token, [`turns`], with [`mod@budgets`] and [`write_rate`], and what a pass tells who runs it, [`ended`]; how much it may say, [`event_budget`] |
//!
//! Only `cli` calls this module. Pure are `validate`, `decide`, `plan`, `derive`, `status`, and
//! the values; they import no client, and a test holds that.

pub mod bootstrap;
mod budgets;
pub mod cache;
pub mod claim;
pub mod claimed;
pub mod connect;
pub mod connections;
pub mod consent;
pub mod content;
pub mod context;
pub mod credentials;
pub mod decide;
pub mod demote;
pub mod derive;
pub mod discoveries;
pub mod ended;
pub mod event_budget;
pub mod execute;
pub mod facts;
pub mod grant;
pub mod handover;
pub mod held;
pub mod identity;
pub mod installation;
pub mod kept_client;
pub mod lend;
pub mod metrics;
pub mod observe;
pub mod orphans;
pub mod own;
pub mod pass;
pub mod plan;
pub mod problem;
pub mod provider_pass;
pub mod providers;
pub mod run;
pub mod secrets;
pub mod service_account;
pub mod shared_read;
pub mod status;
pub mod store;
pub mod taken;
pub mod template;
pub mod turns;
pub mod unread;
pub mod validate;
pub mod write_rate;

#[cfg(test)]
mod status_tests;
#[cfg(test)]
mod validate_tests;
