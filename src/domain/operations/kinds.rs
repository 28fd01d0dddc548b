//! What operations do, in words for the owners of databases: each kind with its steps in their order.
//! The workflows themselves are in `jobs`; a test compares the names.

/// A kind of operation in words.
#[derive(Debug)]
pub struct Kind {
    /// Its name, as the queue has it.
    pub name: &'static str,
    /// What it does.
    pub title: &'static str,
    /// The names of its steps, and what they do.
    pub steps: &'static [(&'static str, &'static str)],
    /// The same of the steps that follow instead of those that are left, when one does not work.
    pub undoing: &'static [(&'static str, &'static str)],
}

/// Every kind that there is.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "provision_database",
        title: "Make the database",
        steps: &[
            ("create_instance", "Make its PostgreSQL server, from a backup where it is restored"),
            ("prove_ready", "Prove that it answers"),
        ],
        undoing: &[],
    },
    Kind {
        name: "copy_database",
        title: "Make the database out of another one",
        steps: &[
            ("create_instance", "Restore a PostgreSQL server of its own out of the backups"),
            ("prove_ready", "Prove that it answers"),
        ],
        undoing: &[],
    },
    Kind {
        name: "delete_database",
        title: "Delete the database",
        steps: &[
            ("keep_backup", "Keep a last backup"),
            ("destroy_instance", "End its PostgreSQL server and remove its files"),
            ("forget", "Forget the rest"),
        ],
        undoing: &[],
    },
    Kind {
        name: "back_up_database",
        title: "Back up the database",
        steps: &[("copy_files", "Copy the files and the log that belongs to them"), ("record", "Record the backup")],
        undoing: &[],
    },
    Kind {
        name: "verify_backup",
        title: "Try a backup",
        steps: &[
            ("restore_for_trial", "Restore it where nobody is routed to"),
            ("check", "Read every table and index"),
            ("discard", "Throw it away"),
        ],
        undoing: &[],
    },
    Kind {
        name: "restore_database",
        title: "Restore the database in place",
        steps: &[
            ("restore_instance", "Restore beside what is there"),
            ("take_over", "End the sessions and let the restored one take over"),
            ("prove_ready", "Prove that it answers"),
            ("discard", "Remove what was there before"),
        ],
        undoing: &[("put_back", "Put what was there before back"), ("discard_restored", "Remove what was restored")],
    },
    Kind {
        name: "recover_database",
        title: "Bring the database back after its machine was lost",
        steps: &[("restore_instance", "Restore what was archived last"), ("prove_ready", "Prove that it answers")],
        undoing: &[],
    },
];

/// What is known of a kind; `None` for one that another version of Howdah has begun.
pub fn describe(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}
