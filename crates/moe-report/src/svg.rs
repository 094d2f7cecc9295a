//! The few marks that the pictures are made of, and the scales that place them.

use std::{
    cmp::Ordering,
    fmt::{Display, Write},
};

/// `text` as content or attribute of HTML and SVG.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Everything else that is not text would make the page ill-formed.
            character if character.is_control() && character != '\n' => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

/// A linear map from data to pixels; values outside the domain are drawn at its edge.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Smallest and largest value.
    pub domain: (f64, f64),
    /// Where these are drawn.
    pub range: (f64, f64),
}

impl Scale {
    /// Pixel of `value`.
    pub fn at(&self, value: f64) -> f64 {
        let ((low, high), (from, to)) = (self.domain, self.range);
        let part = if high > low {
            ((value - low) / (high - low)).clamp(0.0, 1.0)
        } else {
            0.5
        };
        from + part * (to - from)
    }

    /// At most about `count` round values (1, 2 or 5 times a power of ten apart) within the domain, with their texts.
    pub fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let (low, high) = self.domain;
        if high.partial_cmp(&low) != Some(Ordering::Greater) || count == 0 {
            return vec![(low, format!("{low}"))];
        }
        let raw = (high - low) / count as f64;
        let power = 10_f64.powf(raw.log10().floor());
        let step = power
            * [1.0, 2.0, 5.0, 10.0]
                .into_iter()
                .find(|m| m * power >= raw * 0.999)
                .unwrap_or(10.0);
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let (first, last) = (
            (low / step - 1e-9).ceil() as i64,
            (high / step + 1e-9).floor() as i64,
        );
        (first..=last)
            .map(|i| (i as f64 * step, format!("{:.digits$}", i as f64 * step)))
            .collect()
    }
}

/// Where a text stands in relation to its point.
#[derive(Clone, Copy)]
pub enum Anchor {
    /// The text begins there.
    Start,
    /// It is centred there.
    Middle,
    /// It ends there.
    End,
}

/// An SVG picture that is being drawn.
pub struct Picture {
    width: f64,
    height: f64,
    alternative: String,
    body: String,
}

impl Picture {
    /// An empty picture of `width × height` pixels; `alternative` says in words what it shows.
    pub fn new(width: f64, height: f64, alternative: &str) -> Self {
        Self {
            width,
            height,
            alternative: escape(alternative),
            body: String::new(),
        }
    }

    fn push(&mut self, mark: std::fmt::Arguments<'_>) {
        self.body.write_fmt(mark).expect("writing to a string");
    }

    /// A rectangle, with a text that is shown when the pointer rests on it.
    pub fn rect(
        &mut self,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        class: &str,
        tooltip: &str,
    ) {
        let tooltip = if tooltip.is_empty() {
            String::new()
        } else {
            format!("<title>{}</title>", escape(tooltip))
        };
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\">{tooltip}</rect>"
        ));
    }

    /// A text whose baseline begins, is centred or ends at the point.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &dyn Display) {
        self.text_turned((x, y), 0.0, anchor, class, text);
    }

    /// A text turned clockwise by `angle` degrees about its point.
    pub fn text_turned(
        &mut self,
        (x, y): (f64, f64),
        angle: f64,
        anchor: Anchor,
        class: &str,
        text: &dyn Display,
    ) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let turn = if angle == 0.0 {
            String::new()
        } else {
            format!(" transform=\"rotate({angle} {x:.1} {y:.1})\"")
        };
        let text = escape(&text.to_string());
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\"{turn}>{text}</text>"
        ));
    }

    /// A straight line.
    pub fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.push(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        ));
    }

    /// A small disc.
    pub fn dot(&mut self, (x, y): (f64, f64), class: &str, tooltip: &str) {
        let tooltip = escape(tooltip);
        self.push(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.8\" class=\"{class}\"><title>{tooltip}</title></circle>"
        ));
    }

    /// A line through the points; a missing one breaks it.
    pub fn path(&mut self, points: impl IntoIterator<Item = Option<(f64, f64)>>, class: &str) {
        let mut data = String::new();
        let mut command = 'M';
        for point in points {
            match point {
                Some((x, y)) => {
                    write!(data, "{command}{x:.1} {y:.1}").expect("writing to a string");
                    command = 'L';
                }
                None => command = 'M',
            }
        }
        if !data.is_empty() {
            self.push(format_args!("<path d=\"{data}\" class=\"{class}\"/>"));
        }
    }

    /// The area between two lines, given as `(x, low y, high y)`.
    pub fn band(&mut self, points: &[(f64, f64, f64)], class: &str) {
        let there = points.iter().map(|(x, low, _)| (x, low));
        let back = points.iter().rev().map(|(x, _, high)| (x, high));
        let corners: Vec<String> = there
            .chain(back)
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        if !corners.is_empty() {
            self.push(format_args!(
                "<polygon points=\"{}\" class=\"{class}\"/>",
                corners.join(" ")
            ));
        }
    }

    /// The picture as an element for an HTML page, no wider than its surroundings.
    pub fn finish(self) -> String {
        let Self {
            width,
            height,
            alternative,
            body,
        } = self;
        format!(
            "<svg role=\"img\" aria-label=\"{alternative}\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\">{body}</svg>"
        )
    }
}

/// Widest that a character of the pictures' type (12 px) is on average, over the fonts that systems use.
const CHARACTER: f64 = 7.1;

/// About how many pixels wide `text` is at most.
pub fn text_width(text: &str) -> f64 {
    text.chars().map(character_width).sum()
}

/// Characters of East Asia and pictures are about twice as wide as Latin ones.
fn character_width(c: char) -> f64 {
    if c >= '\u{1100}' { 13.0 } else { CHARACTER }
}

/// `text`, cut to about `width` pixels with an ellipsis.
pub fn fit(text: &str, width: f64) -> String {
    if text_width(text) <= width {
        return text.to_owned();
    }
    let mut used = CHARACTER;
    let kept = text.chars().take_while(|&c| {
        used += character_width(c);
        used <= width
    });
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        assert_eq!(
            escape("<a b=\"c\">&'\u{1}"),
            "&lt;a b=&quot;c&quot;&gt;&amp;&#39;\u{fffd}"
        );
        let mut picture = Picture::new(1.0, 1.0, "\"><script>");
        picture.text((0.0, 0.0), Anchor::Start, "", &"<script>");
        picture.rect((0.0, 0.0), (1.0, 1.0), "", "<script>");
        assert!(!picture.finish().contains("<script>"));
    }

    #[test]
    fn ticks_are_round_and_within_the_domain() {
        let scale = Scale {
            domain: (0.43, 1.0),
            range: (0.0, 1.0),
        };
        let texts: Vec<String> = scale.ticks(4).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["0.6", "0.8", "1.0"]);
        let scale = Scale {
            domain: (0.0, 256.0),
            range: (0.0, 1.0),
        };
        let texts: Vec<String> = scale.ticks(6).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["0", "50", "100", "150", "200", "250"]);
    }

    #[test]
    fn a_missing_point_breaks_the_line() {
        let mut picture = Picture::new(1.0, 1.0, "");
        let points = [
            Some((0.0, 0.0)),
            Some((1.0, 1.0)),
            None,
            Some((3.0, 3.0)),
            Some((4.0, 4.0)),
        ];
        picture.path(points, "x");
        assert!(
            picture
                .finish()
                .contains("d=\"M0.0 0.0L1.0 1.0M3.0 3.0L4.0 4.0\"")
        );
    }
}
