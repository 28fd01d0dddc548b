//! Pages of a list: `limit`, and a cursor that survives deletes.

use super::error::{Error, Result};

/// The list's page size when the caller names none.
pub const DEFAULT_LIMIT: u32 = 100;
/// The largest page.
pub const MAX_LIMIT: u32 = 1000;

/// Which part of a list is asked for. Lists are ordered by id, most of them oldest first; the cursor is
/// the bare id of the last row that the caller has, so a deleted row still marks its place.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<Id> {
    /// Rows after this one.
    pub after: Option<Id>,
    /// At most this many rows.
    pub limit: u32,
}

/// One page, and where the next begins.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` on the last one.
    pub next: Option<String>,
}

impl<Id> PageRequest<Id> {
    /// Checks what came in the query.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit outside 1–1000 or a cursor that is none of ours.
    pub fn parse(cursor: Option<&str>, limit: Option<u32>, read: impl Fn(&str) -> Option<Id>) -> Result<Self> {
        Self::parse_up_to(MAX_LIMIT, cursor, limit, read)
    }

    /// Checks what came in the query of a list with smaller pages.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit outside 1–`largest` or a cursor that is none of ours.
    pub fn parse_up_to(
        largest: u32,
        cursor: Option<&str>,
        limit: Option<u32>,
        read: impl Fn(&str) -> Option<Id>,
    ) -> Result<Self> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=largest).contains(&limit) {
            return Err(Error::invalid(
                format!("limit: {limit} is out of range"),
                format!("Use a limit from 1 to {largest}."),
            ));
        }
        let after = match cursor {
            None | Some("") => None,
            Some(text) => Some(read(text).ok_or_else(|| {
                Error::invalid("cursor: not a cursor of this list", "Use pagination.nextCursor of the previous page.")
            })?),
        };
        Ok(Self { after, limit })
    }
}

impl<T> Page<T> {
    /// Cuts a page out of rows that were read with a limit of one more than asked for.
    pub fn cut(mut rows: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = if more { rows.last().map(cursor) } else { None };
        Self { items: rows, next }
    }

    /// The same page of other things.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}
