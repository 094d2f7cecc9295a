//! A table of numbers as a table of colours, with each number printed in its cell.

use super::{
    colours::{LEVELS, Palette},
    svg::{Anchor, Picture, fit, text_width},
};

/// What a heat map shows.
pub struct HeatMap<'a> {
    /// What it shows, in words.
    pub alternative: String,
    /// What the rows are.
    pub row_axis: &'a str,
    /// Names of the rows.
    pub rows: Vec<String>,
    /// What the columns are.
    pub column_axis: &'a str,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// `[rows][columns]`; none where nothing was measured.
    pub cells: Vec<Vec<Option<Cell>>>,
    /// Colours.
    pub palette: Palette,
    /// Values of the two ends of the colours.
    pub range: (f64, f64),
    /// Width and height of a cell in pixels.
    pub size: (f64, f64),
}

/// One cell.
pub struct Cell {
    /// Decides the colour.
    pub value: f64,
    /// Printed in the cell.
    pub text: String,
    /// Printed smaller below it.
    pub note: Option<String>,
    /// Whether it is framed.
    pub framed: bool,
}

/// Longest name of a column in pixels that is written level.
const LEVEL: f64 = 8.0;

impl HeatMap<'_> {
    /// Draws the map.
    ///
    /// # Panics
    /// When `cells` is not `[rows][columns]`.
    pub fn svg(&self) -> String {
        assert_eq!(self.cells.len(), self.rows.len(), "a row of cells per name");
        let (width, height) = self.size;
        let longest = |names: &[String]| {
            names
                .iter()
                .map(|name| text_width(name))
                .fold(0.0, f64::max)
        };
        let turned = longest(&self.columns) > width - LEVEL;
        let names_height = if turned {
            longest(&self.columns).min(120.0) * 0.64 + 14.0
        } else {
            18.0
        };
        let left = longest(&self.rows)
            .max(text_width(self.row_axis))
            .min(180.0)
            + 10.0;
        let top = 18.0 + names_height;
        // A turned name of the last column leans out to the right.
        let right = if turned {
            longest(&self.columns).min(120.0) * 0.77
        } else {
            2.0
        };
        let (inner_width, inner_height) = (
            width * self.columns.len() as f64,
            height * self.rows.len() as f64,
        );
        let total_width = (left + inner_width + right).max(left + text_width(self.column_axis));
        let mut picture = Picture::new(total_width, top + inner_height + 2.0, &self.alternative);
        picture.text((left, 11.0), Anchor::Start, "axis", &self.column_axis);
        picture.text((left - 8.0, top - 6.0), Anchor::End, "axis", &self.row_axis);
        for (index, name) in self.columns.iter().enumerate() {
            let x = left + (index as f64 + 0.5) * width;
            if turned {
                let name = fit(name, 120.0);
                picture.text_turned((x + 3.0, top - 6.0), -40.0, Anchor::Start, "", &name);
            } else {
                picture.text((x, top - 6.0), Anchor::Middle, "", name);
            }
        }
        for (index, name) in self.rows.iter().enumerate() {
            let y = top + (index as f64 + 0.5) * height + 4.0;
            picture.text((left - 8.0, y), Anchor::End, "", &fit(name, 180.0));
        }
        for (row, cells) in self.cells.iter().enumerate() {
            assert_eq!(
                cells.len(),
                self.columns.len(),
                "a cell per column in row {row}"
            );
            for (column, cell) in cells.iter().enumerate() {
                let corner = (left + column as f64 * width, top + row as f64 * height);
                let place = format!("{}, {}", self.rows[row], self.columns[column]);
                self.draw(&mut picture, corner, cell.as_ref(), &place);
            }
        }
        picture.finish()
    }

    fn draw(&self, picture: &mut Picture, (x, y): (f64, f64), cell: Option<&Cell>, place: &str) {
        let (width, height) = self.size;
        let middle = (x + width / 2.0, y + height / 2.0 + 4.0);
        let Some(cell) = cell else {
            picture.rect(
                (x + 0.5, y + 0.5),
                (width - 1.0, height - 1.0),
                "cell none",
                &format!("{place}: not measured"),
            );
            picture.text(middle, Anchor::Middle, "quiet", &"–");
            return;
        };
        let (low, high) = self.range;
        let class = self.palette.class((cell.value - low) / (high - low));
        let tooltip = match &cell.note {
            Some(note) => format!("{place}: {} {note}", cell.text),
            None => format!("{place}: {}", cell.text),
        };
        picture.rect(
            (x + 0.5, y + 0.5),
            (width - 1.0, height - 1.0),
            &format!("cell {class}"),
            &tooltip,
        );
        let lift = if cell.note.is_some() { 5.0 } else { 0.0 };
        let size = if width < 30.0 { "tiny" } else { "value" };
        picture.text(
            (middle.0, middle.1 - lift),
            Anchor::Middle,
            &format!("{size} {class}"),
            &cell.text,
        );
        if let Some(note) = &cell.note {
            picture.text(
                (middle.0, middle.1 + 9.0),
                Anchor::Middle,
                &format!("tiny {class}"),
                note,
            );
        }
        if cell.framed {
            picture.rect(
                (x + 2.0, y + 2.0),
                (width - 4.0, height - 4.0),
                &format!("frame {class}"),
                "",
            );
        }
    }
}

/// The colours of a scale with the values of its two ends and its middle.
pub fn legend(palette: Palette, (low, high): (f64, f64), texts: [&str; 3]) -> String {
    let (step, height) = (14.0, 12.0);
    let bar = step * LEVELS as f64;
    // The texts below are as wide as they are, whatever the bar is.
    let [low_end, middle, high_end] = texts.map(text_width);
    let width = bar.max(middle + 2.0 * low_end.max(high_end) + 16.0);
    let left = (width - bar) / 2.0;
    let alternative = format!(
        "Colour scale from {low:.2} to {high:.2}: {}",
        texts.join(", ")
    );
    let mut picture = Picture::new(width, 32.0, &alternative);
    for level in 0..LEVELS {
        let position = level as f64 / (LEVELS - 1) as f64;
        let class = palette.class(position);
        picture.rect(
            (left + level as f64 * step, 1.0),
            (step + 0.2, height),
            &class,
            "",
        );
    }
    let places = [
        (0.0, Anchor::Start),
        (width / 2.0, Anchor::Middle),
        (width, Anchor::End),
    ];
    for (text, (x, anchor)) in texts.iter().zip(places) {
        picture.text((x, 27.0), anchor, "quiet", text);
    }
    picture.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rows: usize, columns: usize) -> HeatMap<'static> {
        let cell = |row: usize, column: usize| {
            let value = (row + column) as f64 / 10.0;
            let text = format!("{value:.2}");
            (row + column != 1).then_some(Cell {
                value,
                text,
                note: None,
                framed: row == column,
            })
        };
        HeatMap {
            alternative: "a map".into(),
            row_axis: "after",
            rows: (0..rows).map(|row| format!("row {row}")).collect(),
            column_axis: "on",
            columns: (0..columns)
                .map(|column| format!("a rather long column {column}"))
                .collect(),
            cells: (0..rows)
                .map(|r| (0..columns).map(|c| cell(r, c)).collect())
                .collect(),
            palette: Palette::Sequential,
            range: (0.0, 1.0),
            size: (50.0, 30.0),
        }
    }

    #[test]
    fn a_heat_map_has_a_cell_for_every_row_and_column() {
        for (rows, columns) in [(1, 1), (5, 4), (2, 30)] {
            let svg = map(rows, columns).svg();
            assert_eq!(svg.matches("class=\"cell ").count(), rows * columns);
            assert_eq!(svg.matches("class=\"frame ").count(), rows.min(columns));
        }
    }

    #[test]
    fn what_was_not_measured_is_shown_as_such() {
        let svg = map(2, 2).svg();
        assert_eq!(svg.matches("class=\"cell none\"").count(), 2);
        assert!(svg.contains("row 0, a rather long column 1: not measured"));
    }
}
