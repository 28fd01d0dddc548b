//! The OAuth 2.0 authorization server, without its addresses: which applications there are, what
//! people let them do, and the tokens that say so.
//!
//! RFC 6749 as OAuth 2.1 narrows it: authorization codes with PKCE (RFC 7636) and refresh tokens,
//! nothing else. Codes and refresh tokens are random and stored as hashes; an access token is a
//! signed JWT (RFC 9068) whose row decides what it is worth, so that revoking counts at once.

pub mod clients;
pub mod grants;
mod redirect;
mod scopes;

pub use redirect::RedirectUri;
pub use scopes::Scopes;
