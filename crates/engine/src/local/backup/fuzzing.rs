//! See [`crate::local::fuzzing`].

use jiff::Timestamp;

use super::check::Reached;
use super::recovery::read_checksums;
use super::segment::{Segment, parse_position};
use super::vault::{self, Stanza};
use crate::backups::Gap;

/// What pgBackRest and `pg_amcheck` say, and names of segments. Backups are listed by their end, and
/// segments are written as they were read.
pub fn listing(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = (Reached::parse(&text), parse_position(&text));
    if let Ok(listed) = vault::read_listing(&text, "fuzz") {
        let _ = vault::is_beginning(&listed);
    }
    for (segment, checksum) in read_checksums(&text) {
        assert!(Segment::parse(&segment).is_some() && checksum.len() == 40);
    }
    if let Some(segment) = Segment::parse(&text) {
        assert_eq!(segment.to_string(), text);
        assert!(segment < segment.next() && segment.until(segment.next()) == 1);
        assert!(segment.start() <= segment.next().start());
    }
    let Ok(stanzas) = serde_json::from_str::<Vec<Stanza>>(&text) else { return };
    let (first_segment, last_segment) = ("000000010000000000000008".to_owned(), "00000001000000000000000F".to_owned());
    let gap = Gap { first_segment, last_segment, at: Timestamp::UNIX_EPOCH, archived_until: None };
    for stanza in stanzas {
        let Some(holdings) = vault::read(stanza, std::slice::from_ref(&gap)) else { continue };
        assert!(holdings.backups.is_sorted_by_key(|backup| backup.stopped_at));
        assert!(holdings.last_segment.is_some() || holdings.backups.iter().all(|backup| !backup.restorable));
    }
}
