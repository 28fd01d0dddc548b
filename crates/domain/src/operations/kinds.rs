//! Titles of operations and their steps, in order, as the API and the console show them.
//! The workflows are in `jobs`; a test compares the names.

/// The texts of a kind of operation.
#[derive(Debug)]
pub struct Kind {
    /// The name of the workflow.
    pub name: &'static str,
    pub title: &'static str,
    /// Names and titles of the steps.
    pub steps: &'static [(&'static str, &'static str)],
    /// Names and titles of the steps that undo it, which replace the remaining steps after a failure.
    pub undoing: &'static [(&'static str, &'static str)],
}

/// All kinds.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "provision_database",
        title: "Create database",
        steps: &[
            ("create_instance", "Create the PostgreSQL instance"),
            ("prove_ready", "Verify that it accepts connections"),
        ],
        undoing: &[],
    },
    Kind {
        name: "copy_database",
        title: "Copy database",
        steps: &[
            ("create_instance", "Restore the data into a new PostgreSQL instance"),
            ("prove_ready", "Verify that it accepts connections"),
        ],
        undoing: &[],
    },
    Kind {
        name: "delete_database",
        title: "Delete database",
        steps: &[
            ("keep_backup", "Create a final backup"),
            ("destroy_instance", "Stop PostgreSQL and remove its files"),
            ("forget", "Clean up"),
        ],
        undoing: &[],
    },
    Kind {
        name: "back_up_database",
        title: "Back up database",
        steps: &[("copy_files", "Copy files and WAL"), ("record", "Record the backup")],
        undoing: &[],
    },
    Kind {
        name: "verify_backup",
        title: "Verify backup",
        steps: &[
            ("restore_for_trial", "Restore it into a test instance"),
            ("check", "Read all tables and indexes"),
            ("discard", "Remove the test instance"),
        ],
        undoing: &[],
    },
    Kind {
        name: "restore_database",
        title: "Restore database in place",
        steps: &[
            ("restore_instance", "Restore into a new PostgreSQL instance"),
            ("take_over", "End sessions and switch to the restored instance"),
            ("prove_ready", "Verify that it accepts connections"),
            ("discard", "Remove the previous instance"),
        ],
        undoing: &[
            ("put_back", "Switch back to the previous instance"),
            ("discard_restored", "Remove the restored instance"),
        ],
    },
    Kind {
        name: "recover_database",
        title: "Recover database",
        steps: &[
            ("restore_instance", "Restore the latest archived state"),
            ("prove_ready", "Verify that it accepts connections"),
        ],
        undoing: &[],
    },
];

/// The texts of a kind. `None` for an operation that another version of Howdah started.
pub fn describe(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}
