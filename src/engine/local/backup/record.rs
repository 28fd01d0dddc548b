//! What is written down about the archiving of an instance: `archive.json`, that its WAL is kept
//! and what of it was lost, and `archived.json`, how far it has come.

use std::fs;
use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::backups::Gap;
use crate::engine::local::place::{Place, sync_directory, write_for_this_boot, write_private};

/// It exists from the moment on from which WAL is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) gaps: Vec<Gap>,
    #[serde(skip)]
    pub(super) reached: Reached,
}

/// May be forgotten when the power fails: what was archived since is archived again then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reached {
    /// What was archived last.
    pub(super) last_segment: Option<String>,
    /// When PostgreSQL was done with that.
    pub(super) archived_until: Option<Timestamp>,
}

impl Record {
    /// `None`: the instance is not archived.
    pub(super) fn read(place: &Place) -> io::Result<Option<Self>> {
        let mut record: Self = match fs::read(place.archive_record()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => serde_json::from_slice(&read?)?,
        };
        let reached = fs::read(place.archive_progress()).ok();
        record.reached = reached.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Ok(Some(record))
    }

    /// Writes down for good that the instance is archived, and its gaps.
    pub(super) fn write(&self, place: &Place) -> io::Result<()> {
        write_private(&place.archive_record(), &serde_json::to_vec_pretty(self)?)?;
        sync_directory(&place.root)
    }

    /// Writes down how far it has come.
    pub(super) fn note(&self, place: &Place) -> io::Result<()> {
        write_for_this_boot(&place.archive_progress(), &serde_json::to_vec(&self.reached)?)
    }

    pub(super) fn remove(place: &Place) -> io::Result<()> {
        for path in [place.archive_record(), place.archive_progress(), place.vault_intent()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_directory(&place.root)
    }
}
