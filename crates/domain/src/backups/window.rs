//! The moments that a database can be restored to.

use jiff::{SignedDuration, Timestamp};

use super::Backup;
use base::clock::format_timestamp;
use base::error::{Error, Result};
use base::id::InstanceId;

/// What one vault of a database can bring back.
#[derive(Clone, Debug)]
pub struct Era {
    /// The instance whose vault it is.
    pub instance: InstanceId,
    /// The generation's completed backups, oldest first.
    pub backups: Vec<Backup>,
    /// When the instance was replaced or destroyed.
    pub closed_at: Option<Timestamp>,
    /// Everything that was committed before is in the vault.
    pub archived_until: Option<Timestamp>,
    /// Archiving does not work at the moment.
    pub failing: bool,
    /// What was lost, oldest first.
    pub lost: Vec<Loss>,
}

/// WAL that could not be archived and was given up. Recovery cannot pass it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Everything that was committed before is in the vault; `None`: not known.
    pub from: Option<Timestamp>,
    /// When it was given up.
    pub until: Timestamp,
    /// The last segment of it; `None`: not known.
    pub last_segment: Option<String>,
}

impl Loss {
    /// Whether it came after the backup began, so that recovery from that meets it. The clock may have been set
    /// back between the two, so that their names tell, of which later ones sort later.
    fn follows(&self, backup: &Backup, completed_at: Timestamp) -> bool {
        match (&self.last_segment, &backup.first_segment) {
            (Some(lost), Some(first)) => lost >= first,
            _ => self.until >= completed_at,
        }
    }
}

/// Moments that can be restored, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
}

impl Era {
    /// Until when everything that was committed is in the vault; `None`: not known.
    fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.closed_at.or(self.archived_until.map(|until| until.min(now)))
    }

    /// Until when a restore reaches. It brings what the vault lacks into it first, so that an era which goes on
    /// reaches to now unless its archive is stuck.
    fn within_reach_until(&self, now: Timestamp) -> Option<Timestamp> {
        if self.closed_at.is_none() && !self.failing { Some(now) } else { self.held_until(now) }
    }

    /// What recovery can come to from a backup in an era that reaches until this moment, without meeting lost WAL.
    fn span(&self, backup: &Backup, latest: Option<Timestamp>) -> Option<Span> {
        let from = backup.completed_at?;
        let until = match self.lost.iter().find(|loss| loss.follows(backup, from)) {
            Some(loss) => loss.from.unwrap_or(from),
            // A backup that counts is in the vault to its end.
            None => latest.map_or(from, |latest| latest.max(from)),
        };
        // WAL that was lost after a backup was lost after its end, of which only the second is known.
        let until = until.max(from - END_KNOWN_TO);
        Some(Span { from: from.min(until), until })
    }
}

/// How much earlier than is known a backup may have ended.
const END_KNOWN_TO: SignedDuration = SignedDuration::from_secs(1);

/// The eras of a database, oldest first.
#[derive(Clone, Debug)]
pub struct Window {
    eras: Vec<Era>,
    now: Timestamp,
}

impl Window {
    /// The window of these eras, as seen now.
    pub fn of(eras: Vec<Era>, now: Timestamp) -> Self {
        Self { eras, now }
    }

    /// The earliest moment of [`Self::spans`]; `None` when nothing can be restored.
    pub fn earliest(&self) -> Option<Timestamp> {
        self.spans().first().map(|span| span.from)
    }

    /// The latest moment of [`Self::spans`]; `None` when nothing can be restored.
    pub fn latest(&self) -> Option<Timestamp> {
        self.spans().iter().map(|span| span.until).max()
    }

    /// All moments that can be restored from what is in the vaults, oldest first. What lies between two of these
    /// was lost, or came after a restore in place and before its first backup. A damaged backup promises nothing.
    pub fn spans(&self) -> Vec<Span> {
        Self::merge(self.spans_until(Era::held_until))
    }

    /// The same while the instance is there: what was committed since its last segment was archived is archived
    /// before a restore begins.
    pub fn within_reach(&self) -> Vec<Span> {
        Self::merge(self.backups())
    }

    fn merge<'a>(backups: impl Iterator<Item = (&'a Backup, Span)>) -> Vec<Span> {
        let mut all: Vec<Span> = backups.filter(|(backup, _)| !backup.damaged).map(|(_, span)| span).collect();
        all.sort_by_key(|span| span.from);
        all.into_iter().fold(Vec::new(), |mut merged, span| {
            match merged.last_mut().filter(|before| span.from <= before.until) {
                Some(before) => before.until = before.until.max(span.until),
                None => merged.push(span),
            }
            merged
        })
    }

    /// The last moment that a backup may reach, whether it is damaged or not: what there is to try when
    /// nothing is sure. `None` when there is no backup.
    pub fn end(&self) -> Option<Timestamp> {
        let latest = self.within_reach().iter().map(|span| span.until).max();
        latest.or_else(|| self.backups().map(|(_, span)| span.until).max())
    }

    fn backups(&self) -> impl Iterator<Item = (&Backup, Span)> {
        self.spans_until(Era::within_reach_until)
    }

    fn spans_until(
        &self,
        latest: impl Fn(&Era, Timestamp) -> Option<Timestamp>,
    ) -> impl Iterator<Item = (&Backup, Span)> {
        self.eras.iter().flat_map(move |era| {
            let latest = latest(era, self.now);
            era.backups.iter().filter_map(move |backup| era.span(backup, latest).map(|span| (backup, span)))
        })
    }

    /// The backup to begin with to get to a moment: a damaged one when there is no other way.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the window, for a moment outside of it.
    pub fn backup_for(&self, moment: Timestamp) -> Result<&Backup> {
        let fits = self.backups().filter(|(_, span)| (span.from..=span.until).contains(&moment));
        fits.max_by_key(|(backup, span)| (!backup.damaged, span.from))
            .map(|(backup, _)| backup)
            .ok_or_else(|| self.outside(moment))
    }

    /// Whether recovery can go from a backup to a moment.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names what it can be restored to.
    pub fn check(&self, backup: &Backup, moment: Timestamp) -> Result<()> {
        match self.backups().find(|(known, _)| known.id == backup.id).map(|(_, span)| span) {
            Some(Span { from, until }) if (from..=until).contains(&moment) => Ok(()),
            Some(Span { from, until }) => Err(Error::invalid(
                format!(
                    "targetTime: the backup {} can be restored to moments between {} and {}",
                    backup.id,
                    format_timestamp(from),
                    format_timestamp(until)
                ),
                "Give a moment in this period, or use a source of type database, for which Howdah chooses the backup.",
            )),
            _ => Err(self.outside(moment)),
        }
    }

    fn outside(&self, moment: Timestamp) -> Error {
        let moment = format_timestamp(moment);
        let between =
            |span: &Span| format!("between {} and {}", format_timestamp(span.from), format_timestamp(span.until));
        let spans: Vec<String> = self.within_reach().iter().map(between).collect();
        match spans.is_empty() {
            false => Error::invalid(
                format!("targetTime: {moment} cannot be restored: restorable moments are {}", spans.join(", or ")),
                "Give a moment in one of these periods.",
            ),
            true => Error::invalid(
                format!("targetTime: {moment} cannot be restored: the database has no completed backup without damage"),
                "Create a backup first: POST /v1/databases/{databaseId}/backups.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, State};
    use super::*;
    use base::id::{BackupId, DatabaseId};
    use uuid::Uuid;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn era(number: u128, backups: &[i64], closed_at: Option<i64>) -> Era {
        let instance = InstanceId::from(Uuid::from_u128(number));
        let backup = |end: &i64| Backup {
            id: BackupId::from(Uuid::from_u128(*end as u128)),
            database: DatabaseId::from(Uuid::from_u128(9)),
            instance,
            label: Some(format!("{end}")),
            kind: Kind::Full,
            state: State::Completed,
            created_at: at(end - 1),
            completed_at: Some(at(*end)),
            size: None,
            failure_reason: None,
            verified_at: None,
            restore_bytes_per_second: None,
            verified_relations: None,
            verification_failure: None,
            damaged: false,
            first_segment: None,
            labels_before: None,
        };
        let backups = backups.iter().map(backup).collect();
        let archived_until = Some(at(100));
        Era { instance, backups, closed_at: closed_at.map(at), archived_until, failing: false, lost: Vec::new() }
    }

    #[test]
    fn restorable_window_of_a_running_database_ends_now() {
        let running = Era { archived_until: Some(at(60)), ..era(1, &[10], None) };
        let window = Window::of(vec![running.clone()], at(100));
        assert_eq!((window.latest(), window.end()), (Some(at(60)), Some(at(100))));
        assert_eq!(window.within_reach(), [Span { from: at(10), until: at(100) }]);
        assert_eq!(chosen(&window, 99).as_deref(), Some("10"));
        let unknown = Window::of(vec![Era { archived_until: None, ..running.clone() }], at(100));
        assert_eq!(unknown.latest(), Some(at(10)), "no more than the backup is known to be in the vault");
        let clock_set_back = Window::of(vec![running], at(50));
        assert_eq!(clock_set_back.latest(), Some(at(50)));
    }

    fn chosen(window: &Window, moment: i64) -> Option<String> {
        window.backup_for(at(moment)).ok().and_then(|backup| backup.label.clone())
    }

    #[test]
    fn newest_backup_before_the_point_in_time_is_chosen() {
        let window = Window::of(vec![era(1, &[10, 20], Some(30)), era(2, &[35, 50], None)], at(100));
        assert_eq!((window.earliest(), window.latest()), (Some(at(10)), Some(at(100))));
        for (moment, label) in [(10, "10"), (19, "10"), (20, "20"), (30, "20"), (35, "35"), (99, "50"), (100, "50")] {
            assert_eq!(chosen(&window, moment).as_deref(), Some(label), "{moment}");
        }
        for outside in [9, 31, 34, 101] {
            let said = window.backup_for(at(outside)).unwrap_err().to_string();
            assert!(said.contains("between 1970-01-01T00:00:10.000Z and 1970-01-01T00:00:30.000Z"), "{said}");
            assert!(said.contains("or between 1970-01-01T00:00:35.000Z and 1970-01-01T00:01:40.000Z"), "{said}");
        }
    }

    #[test]
    fn failing_archive_or_gap_shortens_the_window() {
        let stuck = Era { failing: true, archived_until: Some(at(60)), ..era(1, &[10], None) };
        let window = Window::of(vec![stuck], at(100));
        assert_eq!(window.latest(), Some(at(60)));
        assert!(window.backup_for(at(61)).is_err());
        let spans = |window: &Window| -> Vec<(i64, i64)> {
            window.spans().iter().map(|span| (span.from.as_second(), span.until.as_second())).collect()
        };
        let lost = |from: Option<i64>| Era {
            lost: vec![Loss { from: from.map(at), until: at(15), last_segment: None }],
            ..era(1, &[5, 10, 20], None)
        };
        let window = Window::of(vec![lost(Some(12))], at(100));
        assert_eq!(spans(&window), [(5, 12), (20, 100)]);
        for (moment, label) in [(7, Some("5")), (12, Some("10")), (13, None), (19, None), (20, Some("20"))] {
            assert_eq!(chosen(&window, moment).as_deref(), label, "{moment}");
        }
        let ten = window.backup_for(at(12)).unwrap().clone();
        assert!(window.check(&ten, at(13)).is_err());
        let unknown = Window::of(vec![lost(None)], at(100));
        assert_eq!(spans(&unknown), [(5, 5), (10, 10), (20, 100)], "the ends of backups can always be restored");
        assert!(Window::of(vec![era(1, &[], None)], at(100)).latest().is_none());
        let just_before = Window::of(vec![lost(Some(9))], at(100));
        assert_eq!(spans(&just_before), [(5, 9), (20, 100)], "the end of the second one is known to a second");
    }

    #[test]
    fn segments_tell_whether_a_loss_came_after_a_backup() {
        let mut set_back = era(1, &[50], None);
        set_back.backups[0].first_segment = Some("000000010000000000000007".into());
        let lost = |segment: &str| Loss { from: Some(at(60)), until: at(20), last_segment: Some(segment.into()) };
        let latest = |lost: Loss| Window::of(vec![Era { lost: vec![lost], ..set_back.clone() }], at(100)).latest();
        assert_eq!(latest(lost("000000010000000000000006")), Some(at(100)), "it was lost before the backup");
        assert_eq!(latest(lost("000000010000000000000007")), Some(at(60)), "after it, by a clock that was set back");
    }

    #[test]
    fn a_damaged_backup_promises_nothing_and_is_the_last_resort() {
        let mut damaged = era(1, &[10, 20, 30], Some(40));
        for number in [0, 2] {
            damaged.backups[number].damaged = true;
        }
        let window = Window::of(vec![damaged.clone()], at(100));
        assert_eq!((window.earliest(), window.latest(), window.end()), (Some(at(20)), Some(at(40)), Some(at(40))));
        for (moment, label) in [(15, "10"), (20, "20"), (35, "20"), (40, "20")] {
            assert_eq!(chosen(&window, moment).as_deref(), Some(label), "{moment}");
        }
        damaged.backups[1].damaged = true;
        let window = Window::of(vec![damaged], at(100));
        assert_eq!((window.latest(), window.spans(), window.end()), (None, Vec::new(), Some(at(40))));
        assert_eq!(chosen(&window, 40).as_deref(), Some("30"));
    }

    #[test]
    fn window_of_a_backup_ends_with_its_generation() {
        let window = Window::of(vec![era(1, &[10, 20], Some(30)), era(2, &[35], None)], at(100));
        let first = window.backup_for(at(10)).unwrap().clone();
        assert!(window.check(&first, at(30)).is_ok());
        for outside in [9, 31, 35] {
            assert!(window.check(&first, at(outside)).is_err());
        }
    }
}
