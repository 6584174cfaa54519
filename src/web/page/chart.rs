//! Small charts: one line over time, as SVG within the page.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use askama::filters::HtmlSafe;

use super::{samples::Sample, shown::Age};
use crate::domain::time::TimestampMs;

/// The chart's own units; it is stretched to the room that it has.
const WIDTH: u64 = 600;
const HEIGHT: u64 = 100;
/// Room above the highest point, so that its line is whole.
const MARGIN: u64 = 4;

/// Lengths of time that charts show: the shortest that has all there is.
const SPANS: [(Duration, &str); 3] = [
    (Duration::from_secs(600), "10 min"),
    (Duration::from_secs(3_600), "1 h"),
    (Duration::from_secs(3 * 3_600), "3 h"),
];

/// A chart with what it says in words.
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// What it is now.
    pub(super) now: String,
    /// What it was at most.
    pub(super) most: String,
    /// From when the chart begins.
    pub(super) span: &'static str,
    pub(super) picture: Picture,
}

/// The line itself.
pub(super) struct Picture(Vec<(u64, u64)>);

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        for (x, y) in &self.0 {
            write!(line, "{x},{y} ")?;
        }
        let line = line.trim_end();
        write!(
            f,
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" "
        )?;
        write!(f, "aria-hidden=\"true\" focusable=\"false\">")?;
        if let (Some((first, _)), Some((last, _))) = (self.0.first(), self.0.last()) {
            write!(f, "<polygon points=\"{first},{HEIGHT} {line} {last},{HEIGHT}\"/>")?;
            write!(f, "<polyline points=\"{line}\" vector-effect=\"non-scaling-stroke\"/>")?;
        }
        write!(f, "</svg>")
    }
}

// Numbers, and what is written here.
impl HtmlSafe for Picture {}

fn span_of(samples: &[Sample], now: TimestampMs) -> (Duration, &'static str) {
    let whole = samples.first().map_or(Duration::ZERO, |first| now.since(first.at));
    let [.., longest] = SPANS;
    SPANS.into_iter().find(|(span, _)| *span >= whole).unwrap_or(longest)
}

/// A chart of what is read from each sample.
fn chart(
    title: &'static str,
    points: &[(TimestampMs, u64)],
    shown: impl Fn(u64) -> String,
    (span, span_says): (Duration, &'static str),
    now: TimestampMs,
) -> Chart {
    let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
    let most = points.iter().map(|(_, value)| *value).max().unwrap_or(0);
    let room = HEIGHT.saturating_sub(MARGIN);
    let place = |(at, value): &(TimestampMs, u64)| {
        let age_ms = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX).min(span_ms);
        let x = scaled(span_ms.saturating_sub(age_ms), span_ms, WIDTH);
        (x, HEIGHT.saturating_sub(scaled(*value, most, room)))
    };
    let mut line: Vec<(u64, u64)> = points.iter().map(place).collect();
    // Where several fall on one place, the highest is what matters.
    line.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.min(next.1);
        }
        same
    });
    let last = points.last().map_or(0, |(_, value)| *value);
    Chart { title, now: shown(last), most: shown(most), span: span_says, picture: Picture(line) }
}

/// `value` of `whole`, as a part of `room`.
fn scaled(value: u64, whole: u64, room: u64) -> u64 {
    let scaled = u128::from(value).saturating_mul(room.into());
    u64::try_from(scaled.checked_div(whole.into()).unwrap_or(0)).unwrap_or(room).min(room)
}

/// The charts of the overview.
pub(super) fn charts(samples: &[Sample], now: TimestampMs) -> [Chart; 3] {
    let span = span_of(samples, now);
    let of = |read: fn(&Sample) -> u64| -> Vec<(TimestampMs, u64)> {
        samples.iter().map(|sample| (sample.at, read(sample))).collect()
    };
    let rates: Vec<(TimestampMs, u64)> = samples
        .windows(2)
        .filter_map(|pair| {
            let [before, after] = pair else { return None };
            let ms = u64::try_from(after.at.since(before.at).as_millis()).ok()?;
            let finished = after.done.saturating_sub(before.done);
            Some((after.at, finished.saturating_mul(60_000).checked_div(ms)?))
        })
        .collect();
    let number = |value: u64| value.to_string();
    [
        chart("Open jobs", &of(|sample| sample.open), number, span, now),
        chart(
            "Age of the oldest open job",
            &of(|sample| sample.oldest_s),
            |seconds| Age(Duration::from_secs(seconds)).to_string(),
            span,
            now,
        ),
        chart("Finished in a minute", &rates, number, span, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: i64, open: u64, done: u64) -> Sample {
        Sample { at: TimestampMs::from_millis(second * 1_000), open, done, oldest_s: open }
    }

    #[test]
    fn a_line_stays_within_its_chart_whatever_is_shown() {
        let now = TimestampMs::from_millis(20_000_000);
        for samples in [
            vec![],
            vec![sample(19_999, 0, 0)],
            vec![sample(0, u64::MAX, u64::MAX), sample(1, 0, 0), sample(30_000, 7, u64::MAX)],
        ] {
            for chart in charts(&samples, now) {
                for (x, y) in &chart.picture.0 {
                    assert!(*x <= WIDTH && *y <= HEIGHT, "{x},{y}");
                }
                assert!(chart.picture.to_string().ends_with("</svg>"));
            }
        }
    }

    #[test]
    fn charts_show_what_is_now_what_was_most_and_how_fast_it_goes() {
        let now = TimestampMs::from_millis(130_000);
        let samples = [sample(100, 9, 0), sample(110, 4, 5), sample(120, 2, 7)];
        let [open, age, rate] = charts(&samples, now);
        assert_eq!((open.now.as_str(), open.most.as_str()), ("2", "9"));
        assert_eq!((age.now.as_str(), age.most.as_str()), ("2 s", "9 s"));
        assert_eq!((rate.now.as_str(), rate.most.as_str()), ("12", "30"));
        assert_eq!(open.span, "10 min");
    }
}
