//! Helpers that the tests of several crates share.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

/// The committed inputs of a fuzz target.
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = std::fs::read_dir(directory).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let inputs: Vec<Vec<u8>> = files.collect();
    assert!(inputs.len() >= 2 && inputs.iter().all(|input| input.len() < 4096), "{target}");
    inputs
}
