//! A person connects an outgoing link: the consent by ticket, page, server and code.
//!
//! - [`record`]: what is kept of one, and how tickets and codes are made and compared (pure).
//! - [`desk`]: the person's side of it: what a request to the operator's pages reads, checks and
//!   writes: the consent's record, and of one that came to nothing it takes the ticket off the link.
//! - [`form`]: what tickets, states and names look like (pure).
//! - [`places`]: how much is worked on at once, for each of many.
//! - [`request`]: the authorization request (pure).
//! - [`trouble`]: why one doesn't go on (pure).
//!
//! The grant that comes of it is made active by the link's own pass, as everything else is: see
//! `decide/consent.rs`. `web` calls the desk, `cli` reads and writes tickets and codes.

pub mod desk;
pub mod form;
pub mod places;
pub mod record;
pub mod request;
pub mod trouble;

pub use desk::{Answer, Consents, Departure, Done, Invitation, Polled, place};
pub use form::{may_be_answer, may_be_ticket};
pub use places::{Share, Shares};
pub use record::{Consent, Purpose, Stage, TICKET_MINUTES, Ticket, code_of, digest, is_code};
pub use trouble::{Stranger, Trouble};
