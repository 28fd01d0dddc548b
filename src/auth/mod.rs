//! Who is calling, and what they may see and do.

mod policy;
pub mod service_tokens;
pub mod signing;

pub use policy::{Limits, Origin, Principal, Scope};
