//! Recoveries: what becomes of everything that was on a machine that is lost, after the metadata was
//! brought back somewhere else. Every instance is gone; vaults are not, and nothing is written into
//! those any more.

mod store;

use jiff::Timestamp;

use crate::{databases, mail, operations, restores};
use base::error::Result;
use base::id::{DatabaseId, InstanceId};
use base::store::Tx;

/// Brings a database back that was lost with its machine.
pub const RECOVER: queue::Kind = queue::Kind { name: "recover_database", first_step: "restore_instance" };

/// What goes on after the loss, from its first step.
const GO_ON: [queue::Kind; 6] =
    [databases::PROVISION, databases::COPY, databases::DELETE, restores::RESTORE, RECOVER, mail::SEND];

const LOST: &str = "the machine that it was running on was lost";

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Databases that are brought back.
    pub databases: usize,
    /// Databases that were being made, and are made anew.
    pub provisions: usize,
    /// Databases that were being deleted, which goes on.
    pub deletes: usize,
}

/// Settles what was under way when the machine was lost, and starts to bring the databases back. What
/// was never finished begins again, a delete goes on, a backup that was being made has failed. Twice
/// is as good as once.
pub async fn begin(tx: &Tx, now: Timestamp) -> Result<Recovery> {
    for kind in GO_ON {
        // Only the making of a database can be retried after it has failed.
        let is_made = [databases::PROVISION.name, databases::COPY.name].contains(&kind.name);
        queue::begin_anew(tx, kind, is_made).await?;
    }
    queue::end_others(tx, &GO_ON, LOST).await?;
    store::end_backups(tx, LOST).await?;
    store::forget_trials(tx).await?;
    store::forget_called_off(tx).await?;
    store::end_archives(tx, now).await?;
    for database in store::under_restore(tx).await? {
        restores::begin_anew(tx, database, InstanceId::generate(now)).await?;
    }
    for database in store::lost(tx).await? {
        start(tx, now, database).await?;
    }
    store::count(tx).await
}

async fn start(tx: &Tx, now: Timestamp, database: DatabaseId) -> Result<()> {
    restores::plan_recovery(tx, database, InstanceId::generate(now)).await?;
    operations::start(tx, now, RECOVER, database).await.map(drop)
}
