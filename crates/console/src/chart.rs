//! Bar charts of a database's usage: the geometry of the bars, and the same numbers as a table. The template
//! draws shapes only; labels are text of the page, so that they stay readable at every width.

use askama::Template;
use jiff::{SignedDuration, Timestamp};

use domain::usage::Hour;

/// In units of the picture, which is stretched to the page's width.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 120.0;
/// The share of a bar's slot that stays empty.
const GAP: f64 = 0.2;

/// The time range of a chart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Span {
    /// 24 hours, by the hour.
    Day,
    /// 7 days, by 6 hours.
    #[default]
    Week,
    /// 30 days, by the day.
    Month,
}

impl Span {
    pub(crate) const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// The value in addresses.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// Parses [`Span::word`]. Anything else means the default.
    pub(crate) fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|span| span.word() == text).unwrap_or_default()
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Day => "24 hours",
            Self::Week => "7 days",
            Self::Month => "30 days",
        }
    }

    /// The time that one bar stands for.
    fn unit(self) -> &'static str {
        match self {
            Self::Day => "hour",
            Self::Week => "6 hours",
            Self::Month => "day",
        }
    }

    fn bars(self) -> (usize, SignedDuration) {
        match self {
            Self::Day => (24, SignedDuration::from_hours(1)),
            Self::Week => (28, SignedDuration::from_hours(6)),
            Self::Month => (30, SignedDuration::from_hours(24)),
        }
    }

    /// The end of the last bar. Bars start at multiples of their length, so that a bar covers the same hours
    /// whenever the page is opened.
    pub(crate) fn end(self, now: Timestamp) -> Timestamp {
        let step = self.bars().1.as_secs();
        Timestamp::from_second((now.as_second().div_euclid(step) + 1) * step).unwrap_or(now)
    }

    /// From the start of the first bar to the end of the last.
    pub(crate) fn length(self) -> SignedDuration {
        let (count, step) = self.bars();
        step * i32::try_from(count).unwrap_or(i32::MAX)
    }

    fn label(self, moment: Timestamp) -> String {
        let form = match self {
            Self::Day => "%H:%M",
            Self::Week | Self::Month => "%-d %b",
        };
        moment.strftime(form).to_string()
    }
}

#[derive(Debug)]
pub(crate) struct Bar {
    x: String,
    y: String,
    width: String,
    height: String,
    label: String,
}

#[derive(Debug)]
pub(crate) struct Picture {
    name: &'static str,
    title: String,
    description: String,
    /// The labels at the top and in the middle of the scale.
    top: String,
    middle: String,
    bars: Vec<Bar>,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Line {
    from: String,
    operations: String,
    size: String,
}

/// Both charts of a database, and the table.
#[derive(Debug, Template)]
#[template(path = "databases/chart.html")]
pub(crate) struct Chart {
    /// Whether nothing was measured yet.
    pub(crate) is_empty: bool,
    pictures: Vec<Picture>,
    /// The labels below the bars: start, middle and end.
    moments: [String; 3],
    lines: Vec<Line>,
}

/// The time of one bar. The size is unknown until the first measurement.
struct Step {
    start: Timestamp,
    operations: u64,
    size: Option<u64>,
}

impl Chart {
    /// The chart of these hours, in order. The first may lie before the span, for the size at its start.
    pub(crate) fn of(hours: &[Hour], span: Span, now: Timestamp) -> Self {
        let steps = steps(hours, span, now);
        let end = span.end(now);
        let total: u64 = steps.iter().map(|step| step.operations).sum();
        let busiest = steps.iter().max_by_key(|step| step.operations).filter(|step| step.operations > 0);
        let about_operations = match busiest {
            None => "None in this time range.".to_owned(),
            Some(step) => {
                format!(
                    "{} total, peak {} in the {} from {}.",
                    count(total),
                    count(step.operations),
                    span.unit(),
                    exact(step.start)
                )
            }
        };
        let sizes = || steps.iter().filter_map(|step| step.size);
        let about_size = match (sizes().next(), sizes().next_back()) {
            (Some(first), Some(last)) => format!("{} to {}.", bytes(first), bytes(last)),
            _ => "Not measured yet.".to_owned(),
        };
        let operations = |step: &Step| {
            (step.operations, format!("{} in the {} from {}", count(step.operations), span.unit(), exact(step.start)))
        };
        let size = |step: &Step| {
            let size = step.size.unwrap_or_default();
            (size, format!("{} at {}", bytes(size), exact(step.start)))
        };
        Self {
            is_empty: hours.is_empty(),
            pictures: vec![
                Picture::of("operations", "Transactions", about_operations, &steps, operations, nice_count, count),
                Picture::of("size", "Size", about_size, &steps, size, nice_bytes, bytes),
            ],
            moments: [
                span.label(end - span.length()),
                span.label(end - SignedDuration::from_secs(span.length().as_secs() / 2)),
                span.label(end),
            ],
            lines: steps
                .iter()
                .rev()
                .map(|step| Line {
                    from: exact(step.start),
                    operations: count(step.operations),
                    size: step.size.map_or_else(|| "Not measured".to_owned(), bytes),
                })
                .collect(),
        }
    }
}

impl Picture {
    fn of(
        name: &'static str,
        title: &str,
        description: String,
        steps: &[Step],
        read: impl Fn(&Step) -> (u64, String),
        nice: impl Fn(u64) -> u64,
        word: impl Fn(u64) -> String,
    ) -> Self {
        let values: Vec<(u64, String)> = steps.iter().map(read).collect();
        let top = nice(values.iter().map(|(value, _)| *value).max().unwrap_or_default());
        let place = WIDTH / values.len().max(1) as f64;
        let bars = values.into_iter().enumerate().filter(|(_, (value, _))| *value > 0).map(|(at, (value, label))| {
            // Every bar with a value is visible.
            let height = (HEIGHT * value as f64 / top as f64).max(1.5);
            Bar {
                x: format!("{:.1}", place * (at as f64 + GAP / 2.0)),
                y: format!("{:.1}", HEIGHT - height),
                width: format!("{:.1}", place * (1.0 - GAP)),
                height: format!("{height:.1}"),
                label,
            }
        });
        Self { name, title: title.to_owned(), description, top: word(top), middle: word(top / 2), bars: bars.collect() }
    }
}

fn steps(hours: &[Hour], span: Span, now: Timestamp) -> Vec<Step> {
    let (bars, length) = span.bars();
    let begin = span.end(now) - span.length();
    let mut hours = hours.iter().peekable();
    let mut size = None;
    while let Some(hour) = hours.next_if(|hour| hour.start < begin) {
        size = Some(hour.storage_bytes);
    }
    let mut start = begin;
    let mut steps = Vec::with_capacity(bars);
    for _ in 0..bars {
        let end = start + length;
        let mut operations = 0;
        while let Some(hour) = hours.next_if(|hour| hour.start < end) {
            operations += hour.operations;
            size = Some(hour.storage_bytes);
        }
        // A size is carried forward to the next measurement, but not into the future.
        steps.push(Step { start, operations, size: size.filter(|_| start <= now) });
        start = end;
    }
    steps
}

fn exact(moment: Timestamp) -> String {
    moment.strftime("%-d %b %Y, %H:%M UTC").to_string()
}

/// A number with thousands separators.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size with the unit that keeps the number below 1024, with one decimal below 100.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = (0..UNITS.len()).rev().find(|unit| size >> (10 * unit) > 0).unwrap_or_default();
    let number = size as f64 / (1u64 << (10 * unit)) as f64;
    let decimals = if unit == 0 || number >= 100.0 || number.fract() < 0.05 { 0 } else { 1 };
    format!("{number:.decimals$} {}", UNITS[unit])
}

/// The next 2, 4 or 10 times a power of ten: even, so that the middle of the scale is a whole number.
fn nice_count(most: u64) -> u64 {
    let mut power: u64 = 1;
    loop {
        for step in [2, 4, 10] {
            let top = power.saturating_mul(step);
            if top >= most {
                return top;
            }
        }
        power = power.saturating_mul(10);
    }
}

/// The next power of two, at least 1 MiB.
fn nice_bytes(most: u64) -> u64 {
    most.max(1 << 20).checked_next_power_of_two().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hour(start: &str, operations: u64, storage_bytes: u64) -> Hour {
        Hour { start: at(start), operations, storage_bytes }
    }

    #[test]
    fn hours_are_summed_and_sizes_are_carried_forward() {
        let now = at("2030-05-17T13:14:15Z");
        let hours = [
            hour("2030-04-01T00:00:00Z", 1_000, 10),
            hour("2030-05-17T06:00:00Z", 3, 20),
            hour("2030-05-17T07:00:00Z", 4, 30),
            hour("2030-05-17T13:00:00Z", 5, 40),
        ];
        let steps = steps(&hours, Span::Week, now);
        assert_eq!(steps.len(), 28);
        let told: Vec<(String, u64, Option<u64>)> =
            steps[24..].iter().map(|step| (step.start.to_string(), step.operations, step.size)).collect();
        assert_eq!(
            told,
            [
                ("2030-05-16T18:00:00Z".into(), 0, Some(10)),
                ("2030-05-17T00:00:00Z".into(), 0, Some(10)),
                ("2030-05-17T06:00:00Z".into(), 7, Some(30)),
                ("2030-05-17T12:00:00Z".into(), 5, Some(40)),
            ]
        );
        let chart = Chart::of(&hours, Span::Week, now);
        assert_eq!(chart.pictures[0].description, "12 total, peak 7 in the 6 hours from 17 May 2030, 06:00 UTC.");
        assert_eq!(chart.pictures[0].bars.len(), 2, "no bar where nothing happened");
        assert_eq!(chart.pictures[1].bars.len(), 28);
        assert_eq!(chart.lines[0].operations, "5", "the newest line first");
    }

    #[test]
    fn bars_stay_inside_the_picture() {
        let now = at("2030-05-17T13:14:15Z");
        for span in Span::ALL {
            let hours =
                [hour("2030-05-17T12:00:00Z", u64::from(u32::MAX), u64::MAX >> 2), hour("2030-05-17T13:00:00Z", 1, 1)];
            for picture in Chart::of(&hours, span, now).pictures {
                for bar in picture.bars {
                    let [x, y, width, height] =
                        [bar.x, bar.y, bar.width, bar.height].map(|text| text.parse::<f64>().unwrap());
                    assert!(x >= 0.0 && x + width <= WIDTH && y >= 0.0 && y + height <= HEIGHT + 0.1, "{span:?}");
                }
            }
        }
        assert!(Chart::of(&[], Span::Day, now).is_empty);
    }

    #[test]
    fn numbers_and_sizes_are_formatted() {
        let told = |numbers: [u64; 4]| numbers.map(count);
        assert_eq!(told([0, 999, 1_000, 1_234_567]), ["0", "999", "1,000", "1,234,567"]);
        let told = |sizes: [u64; 5]| sizes.map(bytes);
        assert_eq!(
            told([512, 1_536, 8 << 20, (75 << 20) + (1 << 19), 130 << 30]),
            ["512 bytes", "1.5 KiB", "8 MiB", "75.5 MiB", "130 GiB"]
        );
        assert_eq!([0, 1, 3, 9, 11, 401].map(nice_count), [2, 2, 4, 10, 20, 1_000]);
        assert_eq!(nice_bytes(9 << 20), 16 << 20);
    }
}
