//! The plots.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use super::{Report, Spread};
use crate::subject::Subject;

const SIZE: (u32, u32) = (860, 360);
const FONT: (&str, u32) = ("sans-serif", 15);
const SETTLED: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const CEILING: RGBColor = RGBColor(0x9a, 0x9a, 0x9a);
const OTHERS: RGBColor = RGBColor(0xd9, 0x8c, 0x3f);

fn colour(subject: Subject) -> RGBColor {
    match subject {
        Subject::Daemon | Subject::DaemonVerifying => SETTLED,
        Subject::Ceiling | Subject::ConsumeOnly => CEILING,
        Subject::NodeBest | Subject::NodePlain | Subject::Python => OTHERS,
    }
}

/// Jobs a second of everyone: a bar for the median, a line from the smallest to the largest.
pub(super) fn throughput(report: &Report, path: &Path) -> anyhow::Result<()> {
    let bars: Vec<(Subject, Spread)> = Subject::COMPARED
        .into_iter()
        .filter_map(|subject| Some((subject, report.spread(subject, |run| run.per_second)?)))
        .collect();
    if bars.is_empty() {
        return Ok(());
    }
    let most = bars.iter().map(|(_, spread)| spread.max).fold(1.0, f64::max) * 1.1;
    let count = i32::try_from(bars.len())?;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("the plot was not drawn: {error}");
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(36)
        .x_label_area_size(36)
        .y_label_area_size(250)
        .build_cartesian_2d(0.0..most, (0..count).into_segmented())
        .map_err(|error| failed(&error))?;
    let name = |place: &SegmentValue<i32>| match place {
        SegmentValue::CenterOf(place) => usize::try_from(count - 1 - place)
            .ok()
            .and_then(|place| bars.get(place))
            .map_or_else(String::new, |(subject, _)| subject.name().to_owned()),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_label_formatter(&name)
        .y_labels(bars.len())
        .x_desc("jobs a second")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .label_style(FONT)
        .axis_desc_style(FONT)
        .draw()
        .map_err(|error| failed(&error))?;
    for (place, (subject, spread)) in bars.iter().enumerate() {
        let place = count - 1 - i32::try_from(place)?;
        let mut bar = Rectangle::new(
            [(0.0, SegmentValue::Exact(place)), (spread.median, SegmentValue::Exact(place + 1))],
            colour(*subject).filled(),
        );
        bar.set_margin(6, 6, 0, 0);
        chart.draw_series([bar]).map_err(|error| failed(&error))?;
        let middle = SegmentValue::CenterOf(place);
        let range = vec![(spread.min, middle.clone()), (spread.max, middle)];
        chart
            .draw_series([PathElement::new(range, BLACK.stroke_width(2))])
            .map_err(|error| failed(&error))?;
    }
    area.present().map_err(|error| failed(&error))
}

/// The rate while the history grew.
pub(super) fn history(report: &Report, path: &Path) -> anyhow::Result<()> {
    let Some(history) = &report.history else { return Ok(()) };
    let most = history.growing.iter().map(|(_, rate)| *rate).fold(1.0, f64::max) * 1.15;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("the plot was not drawn: {error}");
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(36)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..history.jobs_before as f64, 0.0..most)
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc("jobs in the book")
        .y_desc("jobs a second")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style(FONT)
        .axis_desc_style(FONT)
        .draw()
        .map_err(|error| failed(&error))?;
    let line = history.growing.iter().map(|(jobs, rate)| (*jobs as f64, *rate));
    chart
        .draw_series(LineSeries::new(line, SETTLED.stroke_width(2)))
        .map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}
