//! Who is calling, and what they may see and do.

pub mod attempts;
mod bearer;
pub mod links;
pub mod oauth;
pub mod passwords;
mod policy;
pub mod provider;
pub mod service_tokens;
pub mod sessions;
pub mod signing;
pub mod users;

pub use bearer::{Accepted, authenticate, record_use};
pub use policy::{Action, Credential, Limits, Origin, Principal, Role, Scope};
