//! What Howdah's nouns are and the rules that they keep: one folder a noun, each with its types,
//! rules and use cases in `mod.rs` and its SQL in a private `store.rs`.

pub mod connections;
