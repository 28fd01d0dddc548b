//! What is written down about the archiving of an instance: `archive.json`, that its WAL is kept
//! and what of it was lost, and `archived.json`, how far it has come.

use std::fs;
use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::segment::Segment;
use crate::backups::Gap;
use crate::local::place::{Place, sync_directory, write_for_this_boot, write_private};

/// The most gaps that are told apart: false marks for WAL could be made without end.
const MOST_GAPS: usize = 1000;

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

    /// Notes that a segment was lost before it was archived. Losses in a row are one gap, and when there are too
    /// many gaps the last one grows to cover the segment.
    pub(super) fn note_loss(&mut self, segment: &str, at: Timestamp) {
        let is_next =
            |gap: &Gap| Segment::parse(&gap.last_segment).is_some_and(|last| last.next().to_string() == segment);
        let is_full = self.gaps.len() >= MOST_GAPS;
        match self.gaps.last_mut() {
            Some(gap) if is_full || is_next(gap) => {
                if *segment > *gap.last_segment {
                    segment.clone_into(&mut gap.last_segment);
                }
                if *segment < *gap.first_segment {
                    segment.clone_into(&mut gap.first_segment);
                }
            }
            _ => {
                let (first_segment, last_segment) = (segment.to_owned(), segment.to_owned());
                let archived_until = self.reached.archived_until;
                self.gaps.push(Gap { first_segment, last_segment, at, archived_until });
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_in_a_row_are_one_gap_and_gaps_are_bounded() {
        let name = |number: u64| format!("0000000100000000{number:08X}");
        let mut record = Record::default();
        for number in [4, 5, 6, 9] {
            record.note_loss(&name(number), Timestamp::UNIX_EPOCH);
        }
        let gaps: Vec<_> =
            record.gaps.iter().map(|gap| (gap.first_segment.clone(), gap.last_segment.clone())).collect();
        assert_eq!(gaps, [(name(4), name(6)), (name(9), name(9))]);
        for number in (11..3010).step_by(2) {
            record.note_loss(&name(number), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(record.gaps.len(), MOST_GAPS);
        assert_eq!(record.gaps.last().map(|gap| gap.last_segment.clone()), Some(name(3009)));
    }
}
