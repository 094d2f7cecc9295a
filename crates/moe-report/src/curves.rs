//! Line charts: lines named at their ends rather than in a legend, over a marked course of tasks.

use super::svg::{Anchor, Picture, Scale, fit, text_width};

/// What a line chart shows.
pub struct Chart<'a> {
    /// What it shows, in words.
    pub alternative: String,
    /// Written above the plot; empty for none.
    pub title: &'a str,
    /// Width of the plot without names and labels, and its height, in pixels.
    pub size: (f64, f64),
    /// Horizontal axis.
    pub x: Axis<'a>,
    /// Vertical axis.
    pub y: Axis<'a>,
    /// Stretches of the horizontal axis with a name.
    pub regions: Vec<Region>,
    /// Lines, the later ones on top.
    pub lines: Vec<Line>,
}

/// An axis.
pub struct Axis<'a> {
    /// What it is, with its unit.
    pub label: &'a str,
    /// Smallest and largest value.
    pub domain: (f64, f64),
    /// Values that are marked, with their texts; none for round values.
    pub ticks: Option<Vec<(f64, String)>>,
}

/// A stretch of the horizontal axis.
pub struct Region {
    /// Where it begins and ends.
    pub span: (f64, f64),
    /// Its name.
    pub name: String,
    /// Whether it is set off by a tint.
    pub tinted: bool,
}

/// A line through `points`, missing ones left out.
#[derive(Default)]
pub struct Line {
    /// Class that gives it its colour and dashes.
    pub class: String,
    /// Name written at its end; empty for none.
    pub name: String,
    /// `(x, y)`, y missing where nothing was measured.
    pub points: Vec<(f64, Option<f64>)>,
    /// `(x, low, high)` of a band around the line, in unbroken pieces; empty for none.
    pub bands: Vec<Vec<(f64, f64, f64)>>,
    /// Whether each point has a dot.
    pub dots: bool,
    /// Whether it is thin and pale.
    pub faint: bool,
}

/// How much wider bold type is.
const BOLD: f64 = 1.1;

/// Least distance between the names of two lines in pixels.
const NAME_HEIGHT: f64 = 14.0;

impl Chart<'_> {
    /// Draws the chart.
    pub fn svg(&self) -> String {
        let (width, height) = self.size;
        let ticks = |axis: &Axis<'_>, scale: Scale, room: f64| {
            axis.ticks
                .clone()
                .unwrap_or_else(|| scale.ticks((room / 30.0) as usize))
        };
        let names = self
            .lines
            .iter()
            .map(|line| BOLD * text_width(&line.name))
            .fold(0.0, f64::max);
        let title = if self.title.is_empty() { 0.0 } else { 22.0 };
        let regions = if self.regions.iter().all(|region| region.name.is_empty()) {
            0.0
        } else {
            18.0
        };
        let (left, top) = (54.0, title + regions + 6.0);
        let x = Scale {
            domain: self.x.domain,
            range: (left, left + width),
        };
        let y = Scale {
            domain: self.y.domain,
            range: (top + height, top),
        };
        let mut picture = Picture::new(
            left + width + names + 14.0,
            top + height + 40.0,
            &self.alternative,
        );
        if !self.title.is_empty() {
            picture.text((left, 14.0), Anchor::Start, "title", &self.title);
        }
        for region in &self.regions {
            let (from, to) = (x.at(region.span.0), x.at(region.span.1));
            if region.tinted {
                picture.rect((from, top), (to - from, height), "tint", &region.name);
            }
            let name = fit(&region.name, to - from - 4.0);
            // Less than three letters of a name say nothing.
            if name == region.name || name.chars().count() > 3 {
                picture.text(
                    ((from + to) / 2.0, top - 6.0),
                    Anchor::Middle,
                    "quiet",
                    &name,
                );
            }
        }
        for (value, text) in ticks(&self.y, y, height) {
            picture.line((left, y.at(value)), (left + width, y.at(value)), "grid");
            picture.text((left - 6.0, y.at(value) + 4.0), Anchor::End, "quiet", &text);
        }
        for (value, text) in ticks(&self.x, x, width * 0.8) {
            picture.line(
                (x.at(value), top + height),
                (x.at(value), top + height + 4.0),
                "tick",
            );
            picture.text(
                (x.at(value), top + height + 17.0),
                Anchor::Middle,
                "quiet",
                &text,
            );
        }
        let (middle, foot) = (left + width / 2.0, top + height + 34.0);
        picture.text((middle, foot), Anchor::Middle, "axis", &self.x.label);
        let middle = (13.0, top + height / 2.0);
        picture.text_turned(middle, -90.0, Anchor::Middle, "axis", &self.y.label);
        for (line, piece) in self
            .lines
            .iter()
            .flat_map(|line| line.bands.iter().map(move |piece| (line, piece)))
        {
            let piece: Vec<_> = piece
                .iter()
                .map(|(at, low, high)| (x.at(*at), y.at(*low), y.at(*high)))
                .collect();
            picture.band(&piece, &format!("band {}", line.class));
        }
        for line in &self.lines {
            let place = |(at, value): &(f64, Option<f64>)| {
                value
                    .filter(|value| value.is_finite())
                    .map(|value| (x.at(*at), y.at(value)))
            };
            let weight = if line.faint { "faint" } else { "line" };
            picture.path(
                line.points.iter().map(place),
                &format!("{weight} {}", line.class),
            );
            for (point, value) in line
                .points
                .iter()
                .filter(|_| line.dots)
                .filter_map(|point| Some((place(point)?, point.1?)))
            {
                picture.dot(point, &line.class, &format!("{}: {value:.3}", line.name));
            }
        }
        for (line, at) in self.named_lines().zip(self.name_positions(y, top + height)) {
            picture.text(
                (left + width + 8.0, at + 4.0),
                Anchor::Start,
                &format!("name {}", line.class),
                &line.name,
            );
        }
        picture.finish()
    }

    fn named_lines(&self) -> impl Iterator<Item = &Line> {
        self.lines
            .iter()
            .filter(|line| !line.name.is_empty() && line.end().is_some())
    }

    /// Where the names stand: at the ends of their lines, moved apart until none covers another.
    fn name_positions(&self, y: Scale, bottom: f64) -> Vec<f64> {
        let wanted: Vec<f64> = self
            .named_lines()
            .filter_map(|line| Some(y.at(line.end()?)))
            .collect();
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
        let mut placed = wanted.clone();
        for pair in 1..order.len() {
            placed[order[pair]] = placed[order[pair]].max(placed[order[pair - 1]] + NAME_HEIGHT);
        }
        // What was pushed below the plot comes back up, and pushes its upper neighbours in turn.
        let mut lowest = bottom;
        for index in order.into_iter().rev() {
            placed[index] = placed[index].min(lowest);
            lowest = placed[index] - NAME_HEIGHT;
        }
        placed
    }
}

impl Line {
    /// The last value that was measured.
    fn end(&self) -> Option<f64> {
        self.points
            .iter()
            .rev()
            .find_map(|(_, value)| value.filter(|value| value.is_finite()))
    }
}

/// Exponential mean of the values so far, each begun anew where `segment` changes, free of the bias towards its start
/// (Kingma & Ba 2015, §3). `memory` is the number of steps over which it forgets.
pub fn smooth(values: &[(usize, f64)], memory: f64) -> Vec<f64> {
    let keep = 1.0 - 1.0 / memory.max(1.0);
    let (mut sum, mut weight, mut last) = (0.0, 0.0, None);
    let mut smoothed = Vec::with_capacity(values.len());
    for (segment, value) in values {
        if last.replace(*segment) != Some(*segment) {
            (sum, weight) = (0.0, 0.0);
        }
        if value.is_finite() {
            sum = keep * sum + (1.0 - keep) * value;
            weight = keep * weight + (1.0 - keep);
        }
        smoothed.push(sum / weight);
    }
    smoothed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(lines: Vec<Line>) -> Chart<'static> {
        let axis = |label| Axis {
            label,
            domain: (0.0, 1.0),
            ticks: None,
        };
        Chart {
            alternative: String::new(),
            title: "",
            size: (200.0, 100.0),
            x: axis("x"),
            y: axis("y"),
            regions: vec![],
            lines,
        }
    }

    fn line(name: &str, end: f64) -> Line {
        Line {
            name: name.into(),
            points: vec![(0.0, Some(0.0)), (1.0, Some(end))],
            ..Line::default()
        }
    }

    #[test]
    fn curves_skip_missing_values() {
        let points = vec![
            (0.0, Some(0.0)),
            (0.5, None),
            (0.75, Some(f64::NAN)),
            (1.0, Some(1.0)),
        ];
        let svg = chart(vec![Line {
            points,
            dots: true,
            ..Line::default()
        }])
        .svg();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!svg.contains("NaN"));
        assert!(svg.contains("d=\"M54.0 106.0M254.0 6.0\""), "{svg}");
    }

    #[test]
    fn names_of_lines_that_end_together_do_not_cover_one_another() {
        let chart = chart(vec![
            line("a", 0.01),
            line("b", 0.0),
            line("c", 0.02),
            line("d", 0.9),
        ]);
        let scale = Scale {
            domain: (0.0, 1.0),
            range: (100.0, 0.0),
        };
        let mut positions = chart.name_positions(scale, 100.0);
        assert!(positions[2] < positions[0] && positions[0] < positions[1]);
        positions.sort_by(f64::total_cmp);
        assert!(
            positions
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= NAME_HEIGHT - 1e-9)
        );
        assert!(positions[3] <= 100.0);
    }

    #[test]
    fn smoothing_begins_anew_with_each_task_and_leaves_constants_alone() {
        let values = [
            (0, 2.0),
            (0, 2.0),
            (0, f64::NAN),
            (0, 2.0),
            (1, 7.0),
            (1, 7.0),
        ];
        let smoothed = smooth(&values, 10.0);
        for (got, want) in smoothed.iter().zip([2.0, 2.0, 2.0, 2.0, 7.0, 7.0]) {
            assert!((got - want).abs() < 1e-12);
        }
    }
}
