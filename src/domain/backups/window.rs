//! The moments that a database can be restored to.

use jiff::Timestamp;

use super::Backup;
use crate::base::clock::format_timestamp;
use crate::base::error::{Error, Result};
use crate::base::id::InstanceId;

/// What one vault of a database can bring back.
#[derive(Clone, Debug)]
pub struct Era {
    /// The instance whose vault it is.
    pub instance: InstanceId,
    /// Its completed backups, oldest first.
    pub backups: Vec<Backup>,
    /// When the instance was replaced or destroyed.
    pub closed_at: Option<Timestamp>,
    /// Everything that was committed before is in the vault.
    pub archived_until: Option<Timestamp>,
    /// Archiving does not work at the moment.
    pub failing: bool,
    /// When WAL was lost last.
    pub gap_at: Option<Timestamp>,
}

impl Era {
    fn earliest(&self) -> Option<Timestamp> {
        self.usable().filter_map(|backup| backup.completed_at).min()
    }

    /// Until when it reaches. What the archive lacks is brought into it before a restore begins, so
    /// that an era which goes on reaches to now unless its archive is stuck.
    fn latest(&self, now: Timestamp) -> Timestamp {
        match self.closed_at {
            Some(closed) => closed,
            None if self.failing => self.archived_until.unwrap_or(now).min(now),
            None => now,
        }
    }

    /// Backups that recovery can start from without meeting lost WAL.
    fn usable(&self) -> impl Iterator<Item = &Backup> {
        self.backups
            .iter()
            .filter(|backup| self.gap_at.is_none_or(|gap| backup.completed_at.is_some_and(|at| at > gap)))
    }
}

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

    /// The earliest moment; `None` when nothing can be restored.
    pub fn earliest(&self) -> Option<Timestamp> {
        self.eras.iter().filter_map(Era::earliest).min()
    }

    /// The latest moment; `None` when nothing can be restored.
    pub fn latest(&self) -> Option<Timestamp> {
        self.eras.iter().filter(|era| era.earliest().is_some()).map(|era| era.latest(self.now)).max()
    }

    /// The backup to begin with to get to a moment.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the window, for a moment outside of it.
    pub fn backup_for(&self, moment: Timestamp) -> Result<&Backup> {
        let era = self.eras.iter().rev().find(|era| era.earliest().is_some_and(|earliest| earliest <= moment));
        let era = era.filter(|era| moment <= era.latest(self.now)).ok_or_else(|| self.outside(moment))?;
        let fits = |backup: &&Backup| backup.completed_at.is_some_and(|at| at <= moment);
        era.usable().filter(fits).max_by_key(|backup| backup.completed_at).ok_or_else(|| self.outside(moment))
    }

    /// Whether recovery can go from a backup to a moment.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names what it can be restored to.
    pub fn check(&self, backup: &Backup, moment: Timestamp) -> Result<()> {
        let era = self.eras.iter().find(|era| era.instance == backup.instance);
        let latest = era.map(|era| era.latest(self.now));
        match (backup.completed_at, latest) {
            (Some(earliest), Some(latest)) if (earliest..=latest).contains(&moment) => Ok(()),
            (Some(earliest), Some(latest)) => Err(Error::invalid(
                format!(
                    "targetTime: the backup {} can be restored to moments from {} to {}",
                    backup.id,
                    format_timestamp(earliest),
                    format_timestamp(latest)
                ),
                "Give a moment between these, or leave backupId out of a clone to have a backup chosen.",
            )),
            _ => Err(self.outside(moment)),
        }
    }

    fn outside(&self, moment: Timestamp) -> Error {
        let moment = format_timestamp(moment);
        match (self.earliest(), self.latest()) {
            (Some(earliest), Some(latest)) => Error::invalid(
                format!(
                    "targetTime: {moment} cannot be restored: the restorable moments lie between {} and {}",
                    format_timestamp(earliest),
                    format_timestamp(latest)
                ),
                "Give a moment that lies between these; moments between a restore in place and its first backup are missing.",
            ),
            _ => Error::invalid(
                format!("targetTime: {moment} cannot be restored: there is no completed backup"),
                "Make a backup first: POST /v1/databases/{databaseId}/backups.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, State};
    use super::*;
    use crate::base::id::{BackupId, DatabaseId};
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
        };
        let backups = backups.iter().map(backup).collect();
        Era { instance, backups, closed_at: closed_at.map(at), archived_until: None, failing: false, gap_at: None }
    }

    fn chosen(window: &Window, moment: i64) -> Option<String> {
        window.backup_for(at(moment)).ok().and_then(|backup| backup.label.clone())
    }

    #[test]
    fn the_newest_backup_before_the_moment_is_chosen_in_its_own_era() {
        let window = Window::of(vec![era(1, &[10, 20], Some(30)), era(2, &[35, 50], None)], at(100));
        assert_eq!((window.earliest(), window.latest()), (Some(at(10)), Some(at(100))));
        for (moment, label) in [(10, "10"), (19, "10"), (20, "20"), (30, "20"), (35, "35"), (99, "50"), (100, "50")] {
            assert_eq!(chosen(&window, moment).as_deref(), Some(label), "{moment}");
        }
        for outside in [9, 31, 34, 101] {
            let said = window.backup_for(at(outside)).unwrap_err().to_string();
            assert!(said.contains("1970-01-01T00:00:10.000Z and 1970-01-01T00:01:40.000Z"), "{said}");
        }
    }

    #[test]
    fn an_archive_that_is_stuck_or_has_a_gap_shortens_the_window() {
        let stuck = Era { failing: true, archived_until: Some(at(60)), ..era(1, &[10], None) };
        let window = Window::of(vec![stuck], at(100));
        assert_eq!(window.latest(), Some(at(60)));
        assert!(window.backup_for(at(61)).is_err());
        let gap = Era { gap_at: Some(at(15)), ..era(1, &[10, 20], None) };
        let window = Window::of(vec![gap], at(100));
        assert_eq!(window.earliest(), Some(at(20)));
        assert!(window.backup_for(at(12)).is_err());
        assert!(Window::of(vec![era(1, &[], None)], at(100)).latest().is_none());
    }

    #[test]
    fn a_backup_reaches_from_its_end_to_that_of_its_era() {
        let window = Window::of(vec![era(1, &[10, 20], Some(30)), era(2, &[35], None)], at(100));
        let first = window.backup_for(at(10)).unwrap().clone();
        assert!(window.check(&first, at(30)).is_ok());
        for outside in [9, 31, 35] {
            assert!(window.check(&first, at(outside)).is_err());
        }
    }
}
