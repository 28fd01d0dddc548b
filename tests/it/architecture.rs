//! The map and the table of crates in `ARCHITECTURE.md`, checked against the files. The compiler checks the arrows: a
//! crate can only use what its manifest names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Names that say nothing about the content.
const DRAWERS: &[&str] = &["util", "utils", "common", "core", "store", "helpers", "misc", "shared"];

#[test]
fn manifests_name_the_arrows_of_the_table() {
    let mut wrong = Vec::new();
    let described = table();
    let crates = folders(&root().join("crates"));
    for name in &crates {
        let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let used: BTreeSet<String> = dependencies(&manifest).filter(|used| crates.contains(used)).collect();
        match described.get(name) {
            None => wrong.push(format!("the table lacks `{name}`")),
            Some(told) if *told != used => {
                wrong.push(format!("the table says that `{name}` uses {told:?}; its manifest says {used:?}"));
            }
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md, \"Crates\": {}", wrong.join("; "));
}

#[test]
fn no_crate_or_module_of_the_program_is_a_drawer() {
    let modules = fs::read_dir(root().join("src")).unwrap().chain(fs::read_dir(root().join("crates")).unwrap());
    for entry in modules {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(!DRAWERS.contains(&name.as_str()), "{name}: name it after what it does");
    }
}

#[test]
fn map_names_every_folder() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let top = folders(&root()).into_iter().filter(|name| {
        let ours = !name.starts_with('.') || name == ".ci" || name == ".config";
        ours && !["target", "node_modules"].contains(&name.as_str())
    });
    let below = ["src", "crates"]
        .into_iter()
        .flat_map(|parent| folders(&root().join(parent)).into_iter().map(move |name| format!("{parent}/{name}")));
    let missing: Vec<String> =
        top.chain(below).map(|path| format!("{path}/")).filter(|path| !map.contains(&format!("`{path}`"))).collect();
    assert!(missing.is_empty(), "the code map in ARCHITECTURE.md lacks {missing:?}");
}

/// The table of crates: each with the crates that it uses.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| *line != "| crate | uses |").skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            let (name, uses) = (cells.next().unwrap(), cells.next().unwrap());
            (name, uses.split(", ").filter(|used| *used != "none").map(str::to_owned).collect())
        })
        .collect()
}

/// The names below `[dependencies]` in a manifest.
fn dependencies(manifest: &str) -> impl Iterator<Item = String> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ']).next().filter(|name| !name.is_empty()))
        .map(str::to_owned)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn folders(of: &Path) -> Vec<String> {
    let entries = fs::read_dir(of).unwrap().map(Result::unwrap);
    entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}
