//! The arrows between the folders of `src/`, and the map in `ARCHITECTURE.md`, checked against the files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each folder of `src/` may use of the others. The files directly in `src/` and
/// [`ASSEMBLY`] put the parts together and may use everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("engine", &["base"]),
    ("gateway", &["base", "engine", "domain::connections::credential"]),
    ("queue", &["base"]),
    ("auth", &["base", "queue"]),
    ("domain", &["base", "auth", "queue"]),
    ("mail", &["base"]),
    ("jobs", &["base", "engine", "gateway", "queue", "auth", "domain", "mail", "app", "config", "metadata"]),
    ("http", &["base", "auth", "domain", "app"]),
    ("client", &["base"]),
    ("cli", &["base", "client", "config"]),
];
const ASSEMBLY: &[&str] = &["metadata", "serve"];
/// The entry point: it starts the platform or the client, so it knows both.
const ENTRY: &str = "src/cli/mod.rs";
/// The gateway reads it, so it must know nothing of who may do what.
const CREDENTIAL: &str = "src/domain/connections/credential";
/// Drawers: a name that says nothing about what is inside.
const DRAWERS: &[&str] = &["util", "utils", "common", "core", "store", "helpers", "misc", "shared"];

#[test]
fn folders_use_only_what_their_arrows_allow() {
    let mut wrong = Vec::new();
    for file in rust_files(&root().join("src")) {
        let shown = relative(&file);
        let text = code(&fs::read_to_string(&file).unwrap());
        for trick in ["include!(", "#[path", "crate as ", "crate::*"] {
            if text.contains(trick) {
                wrong.push(format!("{shown}: `{trick}` hides what a file uses"));
            }
        }
        if reaches_root(&shown, &text) {
            wrong.push(format!("{shown}: a chain of `super` leaves its folder; write `crate::`"));
        }
        let Some(folder) = folder(&shown) else { continue };
        if ASSEMBLY.contains(&folder) || shown == ENTRY {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == folder) else {
            wrong.push(format!("{shown}: the folder `{folder}` is not in ARROWS (tests/it/architecture.rs)"));
            continue;
        };
        for path in uses(&text) {
            let within = |part: &str| path == part || path.starts_with(&format!("{part}::"));
            let hidden = shown.starts_with(CREDENTIAL) && within("auth");
            if hidden || !(within(folder) || allowed.iter().any(|part| within(part))) {
                wrong.push(format!("{shown}: uses crate::{path}, and `{folder}` may use {allowed:?} only"));
            }
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md, \"Arrows\", says who may use whom:\n{}", wrong.join("\n"));
}

#[test]
fn no_module_is_a_drawer() {
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(!DRAWERS.contains(&name.as_str()), "src/{name}: name it after what it does");
    }
}

#[test]
fn the_map_names_every_folder() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut missing = Vec::new();
    for name in folders(&root()) {
        let ours = !name.starts_with('.') || name == ".ci" || name == ".config";
        if ours && !["target", "node_modules"].contains(&name.as_str()) && !map.contains(&format!("`{name}/`")) {
            missing.push(format!("{name}/"));
        }
    }
    missing.extend(
        folders(&root().join("src"))
            .into_iter()
            .map(|name| format!("src/{name}/"))
            .filter(|path| !map.contains(&format!("`{path}`"))),
    );
    assert!(missing.is_empty(), "the code map in ARCHITECTURE.md lacks {missing:?}");
}

#[test]
fn uses_are_found_in_groups_and_in_expressions() {
    let text = "use crate::{base::{id, time::Now}, engine as e};\nlet x = crate::queue::start();";
    let found: Vec<_> = uses(text).into_iter().collect();
    assert_eq!(found, ["base::id", "base::time::Now", "engine", "queue::start"]);
    assert!(reaches_root("src/base/id.rs", "use super::super::engine::X;"));
    assert!(!reaches_root("src/base/mod.rs", "mod tests {\n    use super::*;\n}"));
}

/// Every path below `crate::` that a text mentions, with groups written out.
fn uses(text: &str) -> BTreeSet<String> {
    text.match_indices("crate::")
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$'))
        .flat_map(|(at, found)| expand("", &text[at + found.len()..]))
        .collect()
}

/// Writes out `a::{b, c::d}` as `a::b` and `a::c::d`, reading as far as the path goes.
fn expand(prefix: &str, rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        let (path, after) = rest.split_at(end);
        if after.starts_with('{') && path.ends_with("::") {
            return expand(&format!("{prefix}{path}"), after);
        }
        return vec![format!("{prefix}{}", path.trim_end_matches(':'))];
    };
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        if (character == ',' || character == '}') && depth == 0 {
            let item = group[start..at].trim();
            if !item.is_empty() {
                paths.extend(expand(prefix, item));
            }
            start = at + 1;
        }
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    paths
}

/// Whether a chain of `super::` gets to the crate's root, past the file's own folder.
fn reaches_root(file: &str, text: &str) -> bool {
    let parts = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = if ["lib", "main"].contains(&parts) { 0 } else { parts.split('/').count() };
    text.lines().any(|line| {
        let mut rest = line;
        while let Some(at) = rest.find("super::") {
            let chain = &rest[at..];
            let mut supers = 0;
            while chain[supers * 7..].starts_with("super::") {
                supers += 1;
            }
            // One level more inside a module that is written in the file itself.
            let inline = usize::from(line.starts_with(' '));
            if folder(file).is_some() && supers >= depth + inline {
                return true;
            }
            rest = &chain[supers * 7..];
        }
        false
    })
}

/// The text without the lines that are comments only.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The folder of `src/` that a file is in; none for the files directly in `src/`.
fn folder(file: &str) -> Option<&str> {
    file.trim_start_matches("src/").split_once('/').map(|(folder, _)| folder)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

fn folders(of: &Path) -> Vec<String> {
    let entries = fs::read_dir(of).unwrap().map(Result::unwrap);
    entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn rust_files(of: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
