//! What the commands of every noun share: how a thing is read, shown, and found by its name.

use std::num::NonZero;

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use super::session::Session;
use super::table::Cell;
use crate::client::{self, LARGE_PAGE, Listing};

/// A noun of the API.
pub(super) trait Noun: DeserializeOwned {
    /// One of them.
    const SINGULAR: &'static str;
}

/// A noun that is shown in lists.
pub(super) trait Listed: Noun {
    /// Many of them.
    const PLURAL: &'static str;
    /// The headings.
    const COLUMNS: &'static [&'static str];

    /// A line, under [`Listed::COLUMNS`].
    fn cells(&self, now: Timestamp) -> Vec<Cell>;
}

/// A noun that is shown by itself.
pub(super) trait Shown: Noun {
    /// Everything about it, each fact behind its title.
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)>;
}

/// A noun whose things have names that people give in place of ids.
pub(super) trait Named: Listed {
    /// Whether a text is an id of this noun, and not a name.
    fn is_id(text: &str) -> bool;
    /// Its id.
    fn id(&self) -> &str;
    /// Its name.
    fn name(&self) -> &str;
    /// What it belongs to, to tell it from others of its name.
    fn place(&self) -> String;
}

/// How much of a list.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Rows {
    /// The maximum number of rows [default: all]
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<NonZero<usize>>,
}

impl Rows {
    /// All rows of a list, or as many as are wanted.
    pub(super) fn of<'a>(self, path: &'a [&'a str], query: &'a [(&'a str, String)]) -> Listing<'a> {
        Listing { path, query, page: LARGE_PAGE, limit: self.limit.map(NonZero::get) }
    }
}

/// A whole list, to look for names in.
pub(super) fn all<'a>(path: &'a [&'a str], query: &'a [(&'a str, String)]) -> Listing<'a> {
    Rows { limit: None }.of(path, query)
}

/// Another thing, as it is named inside one.
#[derive(Debug, Deserialize)]
pub(super) struct Reference {
    pub(super) id: String,
    pub(super) name: String,
}

/// Reads a thing that the API answered.
pub(super) fn read<N: Noun>(value: &Value) -> Result<N, Failure> {
    N::deserialize(value).map_err(|error| {
        let sentence =
            format!("the server returned data that this version of howdah cannot read ({}): {error}", N::SINGULAR);
        client::Failure::Foreign(sentence).into()
    })
}

/// A text of an answer that must be shown whatever else is in it, because it holds a secret.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("-")
}

/// The id that a text means: it is one, or the exact name of one thing among those listed.
pub(super) async fn find<N: Named>(session: &Session, text: &str, among: Listing<'_>) -> Result<String, Failure> {
    if N::is_id(text) {
        return Ok(text.to_owned());
    }
    let things = session.client.list(among).await?.iter().map(read::<N>).collect::<Result<Vec<N>, _>>()?;
    choose(text, &things)
}

/// The id of the one thing that has this name.
pub(super) fn choose<N: Named>(text: &str, things: &[N]) -> Result<String, Failure> {
    let found: Vec<&N> = things.iter().filter(|thing| thing.name() == text).collect();
    match found.as_slice() {
        [] => Err(Failure::NotFound(format!("no {} named {text:?}", N::SINGULAR))),
        [only] => Ok(only.id().to_owned()),
        several => Err(Failure::Ambiguous(
            format!("{} {} are named {text:?}; give the ID instead", several.len(), N::PLURAL),
            several.iter().map(|thing| format!("{}  {}", thing.id(), thing.place())).collect(),
        )),
    }
}
