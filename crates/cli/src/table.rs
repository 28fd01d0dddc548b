//! Tables and times as people read them.

use comfy_table::{Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets};
use jiff::Timestamp;

use super::output::{Tone, plain};

/// What a stream can show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Whether there are colours.
    pub(super) colours: bool,
    /// How many characters a line has; no limit where nobody looks at lines.
    pub(super) width: Option<u16>,
}

/// A text in a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
    /// It is copied, so it is never broken into lines.
    whole: bool,
}

impl Cell {
    /// Any text.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain, whole: false }
    }

    /// A text that may not be there.
    pub(super) fn maybe(text: Option<impl Into<String>>) -> Self {
        text.map_or_else(|| Self::new("-").with(Tone::Faint), Self::new)
    }

    /// An id, which people copy.
    pub(super) fn id(text: impl Into<String>) -> Self {
        Self { whole: true, ..Self::new(text) }
    }

    /// How long ago something was, or when it will be.
    pub(super) fn age(time: Timestamp, now: Timestamp) -> Self {
        Self { whole: true, ..Self::new(age(time, now)) }
    }

    /// A point in time, in full.
    pub(super) fn time(time: Timestamp, now: Timestamp) -> Self {
        Self::new(format!("{} ({})", time.strftime("%Y-%m-%d %H:%M:%S UTC"), age(time, now)))
    }

    /// The same in another tone.
    pub(super) fn with(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// A table with a heading, one line a row where there is room.
pub(super) fn list(columns: &[&str], rows: Vec<Vec<Cell>>, look: Look) -> String {
    let whole: Vec<usize> =
        (0..columns.len()).filter(|column| rows.iter().any(|row| row.get(*column).is_some_and(|c| c.whole))).collect();
    let mut table = bare(look);
    table.set_header(columns.iter().map(|title| styled(Cell::new(*title).with(Tone::Faint))));
    for row in rows {
        table.add_row(row.into_iter().map(styled));
    }
    finish(table, &whole)
}

/// Facts about one thing, each on a line behind its title.
pub(super) fn facts(facts: Vec<(&'static str, Cell)>, look: Look) -> String {
    let mut table = bare(look);
    for (title, cell) in facts {
        table.add_row([styled(Cell::new(title).with(Tone::Faint)), styled(cell)]);
    }
    finish(table, &[0])
}

/// Lines of text beside a title, which stands at the first.
pub(super) fn beside(title: Cell, lines: Vec<String>, look: Look) -> String {
    let mut table = bare(look);
    let mut title = Some(title);
    for line in lines {
        table.add_row([styled(title.take().unwrap_or_else(|| Cell::new(""))), styled(Cell::new(line))]);
    }
    for (column, padding) in table.column_iter_mut().zip([1, 0]) {
        column.set_padding((0, padding));
    }
    table.trim_fmt() + "\n"
}

/// The text, with columns two blanks apart, and those whose lines are not to be broken as wide as they are.
fn finish(mut table: Table, whole: &[usize]) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in whole {
        if let Some(column) = table.column_mut(*column) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.trim_fmt() + "\n"
}

/// A table without lines.
fn bare(look: Look) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match look.width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    match look.colours {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    table
}

fn styled(cell: Cell) -> comfy_table::Cell {
    let shown = comfy_table::Cell::new(plain(&cell.text)).set_alignment(CellAlignment::Left);
    match cell.tone {
        Tone::Plain => shown,
        Tone::Good => shown.fg(Color::DarkGreen),
        Tone::Pending => shown.fg(Color::DarkYellow),
        Tone::Bad => shown.fg(Color::DarkRed),
        Tone::Faint => shown.add_attribute(Attribute::Dim),
    }
}

/// `5m ago`, `in 30d`.
fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - time.as_second();
    let (number, unit) = match seconds.abs() {
        0..5 => return "now".into(),
        seconds @ 5..60 => (seconds, "s"),
        seconds @ 60..3600 => (seconds / 60, "m"),
        seconds @ 3600..86_400 => (seconds / 3600, "h"),
        seconds @ 86_400..63_072_000 => (seconds / 86_400, "d"),
        seconds => (seconds / 31_536_000, "y"),
    };
    if seconds < 0 { format!("in {number}{unit}") } else { format!("{number}{unit} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { colours: false, width: Some(60) };

    fn row(name: &str, tone: Tone) -> Vec<Cell> {
        vec![Cell::new(name), Cell::id("db_01jzq6w3c4e5f6g7h8j9k0m1n2"), Cell::new("ready").with(tone)]
    }

    #[test]
    fn a_table_fits_its_lines_and_breaks_no_id() {
        let name = "the reporting database of the whole company";
        let rows = vec![row("short", Tone::Good), row(name, Tone::Bad)];
        let shown = list(&["NAME", "ID", "STATUS"], rows.clone(), PLAIN);
        insta::assert_snapshot!(shown, @r"
        NAME             ID                             STATUS
        short            db_01jzq6w3c4e5f6g7h8j9k0m1n2  ready
        the reporting    db_01jzq6w3c4e5f6g7h8j9k0m1n2  ready
        database of the
        whole company
        ");
        let wide = list(&["NAME", "ID", "STATUS"], rows, Look { width: None, ..PLAIN });
        assert_eq!(wide.lines().count(), 3, "a line each where nobody looks: {wide}");
    }

    #[test]
    fn colors_are_used_only_where_wanted() {
        let coloured = list(&["NAME", "ID", "STATUS"], vec![row("x", Tone::Good)], Look { colours: true, ..PLAIN });
        assert!(coloured.contains("\u{1b}["), "{coloured:?}");
        let shown = list(&["NAME", "ID", "STATUS"], vec![row("x", Tone::Good)], PLAIN);
        assert!(!shown.contains('\u{1b}'));
    }

    #[test]
    fn a_name_does_not_command_the_terminal() {
        let shown = list(&["NAME", "ID", "STATUS"], vec![row("a\u{1b}[2Jb\u{7}", Tone::Plain)], PLAIN);
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
    }

    #[test]
    fn facts_stand_behind_their_titles() {
        let now: Timestamp = "2025-07-09T12:00:00Z".parse().unwrap();
        let made: Timestamp = "2025-07-07T11:52:15.341Z".parse().unwrap();
        let shown = facts(
            vec![
                ("Name", Cell::new("main")),
                ("Created", Cell::time(made, now)),
                ("Region", Cell::maybe(None::<&str>)),
            ],
            PLAIN,
        );
        insta::assert_snapshot!(shown, @r"
        Name     main
        Created  2025-07-07 11:52:15 UTC (2d ago)
        Region   -
        ");
    }

    #[test]
    fn ages_are_short() {
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        let shown = |seconds: i64| age(Timestamp::from_second(1_000_000_000 - seconds).unwrap(), now);
        assert_eq!(shown(0), "now");
        assert_eq!(shown(59), "59s ago");
        assert_eq!(shown(3599), "59m ago");
        assert_eq!(shown(86_399), "23h ago");
        assert_eq!(shown(86_400 * 400), "400d ago");
        assert_eq!(shown(86_400 * 365 * 3), "3y ago");
        assert_eq!(shown(-86_400 * 30), "in 30d");
    }
}
