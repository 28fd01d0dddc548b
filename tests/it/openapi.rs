//! The committed document is what the routes say.

#[test]
fn the_committed_document_is_fresh() {
    let committed = include_str!("../../openapi.json");
    assert!(
        committed == howdah::cli::openapi(),
        "openapi.json is stale; run: cargo run -- openapi > openapi.json"
    );
}
