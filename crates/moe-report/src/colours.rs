//! Colours as CSS variables for the light and the dark mode: methods, and two scales that are even to the eye.
//!
//! The scales are lines in Oklab (Ottosson 2020) whose lightness moves in equal steps, so that they keep their order for
//! every kind of colour vision and in grey print. Method colours are those of Okabe & Ito, darkened or lightened until
//! they can be read as text.

use std::fmt::Write;

/// Steps of a scale; a value is shown in the colour of the nearest.
pub const LEVELS: usize = 21;

/// A scale of colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// From little, close to the page, to much.
    Sequential,
    /// From one side (orange) over a neutral middle to the other (blue).
    Diverging,
}

impl Palette {
    /// CSS classes of the cell and of the text in it, for a value at `position` in [0, 1] of the scale.
    pub fn class(self, position: f64) -> String {
        let level = (position.clamp(0.0, 1.0) * (LEVELS - 1) as f64).round() as usize;
        let name = if self == Self::Sequential { 'h' } else { 'd' };
        format!("{name}{level}")
    }

    /// Oklab lightness, chroma and hue (degrees) at `t` in [0, 1].
    fn at(self, t: f64, dark: bool) -> (f64, f64, f64) {
        let side = (t - 0.5).abs() * 2.0;
        match (self, dark) {
            (Self::Sequential, false) => (
                0.97 - 0.60 * t,
                0.03 + 0.10 * t * (1.0 - t) + 0.07 * t,
                105.0 + 165.0 * t,
            ),
            (Self::Sequential, true) => (
                0.31 + 0.58 * t,
                0.05 + 0.08 * t * (1.0 - t) + 0.03 * t,
                285.0 - 175.0 * t,
            ),
            (Self::Diverging, false) => (
                0.96 - 0.40 * side,
                0.135 * side,
                if t < 0.5 { 55.0 } else { 255.0 },
            ),
            (Self::Diverging, true) => (
                0.33 + 0.40 * side,
                0.13 * side,
                if t < 0.5 { 60.0 } else { 250.0 },
            ),
        }
    }
}

/// Colours of the methods in the order in which they come; further ones begin anew, told apart by their dashes.
const METHODS: [(&str, &str); 6] = [
    ("#0067a8", "#5cb8f0"),
    ("#c04a00", "#f5914e"),
    ("#007a5a", "#3ccfa2"),
    ("#a0407a", "#ec9bc9"),
    ("#7a6000", "#e6c229"),
    ("#55565c", "#b9bbc4"),
];

/// Dashes of the methods, so that lines are told apart without colour.
const DASHES: [&str; 6] = ["none", "7 3", "2 2.5", "9 3 2 3", "5 5", "1 4"];

/// Luminance of the lightest ground with white text: somewhat above the 0.18 at which black and white have the same
/// contrast by WCAG's formula, which is known to flatter black on saturated blue.
const WHITE_BELOW: f64 = 0.23;

/// The class that gives a method's colour to its line and its label.
pub fn method_class(index: usize) -> String {
    format!("m{}", index % METHODS.len())
}

/// Definitions of every colour variable.
pub fn variables(dark: bool) -> String {
    let mut css = String::new();
    for (index, (light_colour, dark_colour)) in METHODS.iter().enumerate() {
        let colour = if dark { dark_colour } else { light_colour };
        write!(css, "--m{index}:{colour};").expect("writing to a string");
    }
    for (name, palette) in [('h', Palette::Sequential), ('d', Palette::Diverging)] {
        for level in 0..LEVELS {
            let (lightness, chroma, hue) = palette.at(level as f64 / (LEVELS - 1) as f64, dark);
            let colour = oklch(lightness, chroma, hue);
            let [r, g, b] = colour;
            let ink = if luminance(colour) > WHITE_BELOW {
                "#111"
            } else {
                "#fff"
            };
            write!(
                css,
                "--{name}{level}:#{r:02x}{g:02x}{b:02x};--{name}{level}t:{ink};"
            )
            .expect("writing to a string");
        }
    }
    css
}

/// Rules that put the variables to use.
pub fn rules() -> String {
    let mut css = String::new();
    for (index, dash) in DASHES.iter().enumerate() {
        write!(
            css,
            ".m{index}{{--c:var(--m{index})}}path.m{index}{{stroke-dasharray:{dash}}}"
        )
        .expect("writing to a string");
    }
    for name in ['h', 'd'] {
        for level in 0..LEVELS {
            write!(css, "rect.{name}{level}{{fill:var(--{name}{level})}}text.{name}{level}{{fill:var(--{name}{level}t)}}rect.frame.{name}{level}{{fill:none;stroke:var(--{name}{level}t)}}")
                .expect("writing to a string");
        }
    }
    css
}

/// Oklch to sRGB bytes.
fn oklch(lightness: f64, chroma: f64, hue: f64) -> [u8; 3] {
    linear(lightness, chroma, hue).map(|value| {
        let value = value.clamp(0.0, 1.0);
        let encoded = if value <= 0.003_130_8 {
            12.92 * value
        } else {
            1.055 * value.powf(1.0 / 2.4) - 0.055
        };
        (encoded * 255.0).round() as u8
    })
}

/// Oklch to linear sRGB (Ottosson 2020); a colour that no screen shows has a part outside [0, 1].
fn linear(lightness: f64, chroma: f64, hue: f64) -> [f64; 3] {
    let (sin, cos) = hue.to_radians().sin_cos();
    let (a, b) = (chroma * cos, chroma * sin);
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
    [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701_0 * s,
    ]
}

/// Relative luminance in [0, 1] (WCAG 2).
fn luminance(colour: [u8; 3]) -> f64 {
    let linear = colour.map(|byte| {
        let value = f64::from(byte) / 255.0;
        if value <= 0.040_45 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    });
    0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_needs_no_chroma_and_white_is_white() {
        assert_eq!(oklch(1.0, 0.0, 0.0), [255, 255, 255]);
        assert_eq!(oklch(0.0, 0.0, 0.0), [0, 0, 0]);
    }

    #[test]
    fn no_colour_of_a_scale_has_to_be_clipped() {
        for palette in [Palette::Sequential, Palette::Diverging] {
            for step in 0..LEVELS * 2 {
                let (l, c, h) =
                    palette.at((step % LEVELS) as f64 / (LEVELS - 1) as f64, step >= LEVELS);
                let parts = linear(l, c, h);
                assert!(
                    parts.iter().all(|part| (-0.005..=1.005).contains(part)),
                    "{palette:?} {step}: {parts:?}"
                );
            }
        }
    }

    #[test]
    fn every_step_of_the_sequential_scale_is_darker_than_the_one_before() {
        for dark in [false, true] {
            let lights: Vec<f64> = (0..LEVELS)
                .map(|level| Palette::Sequential.at(level as f64 / (LEVELS - 1) as f64, dark))
                .map(|(l, c, h)| luminance(oklch(l, c, h)))
                .collect();
            assert!(
                lights.windows(2).all(|pair| (pair[0] > pair[1]) != dark),
                "{lights:?}"
            );
        }
    }

    #[test]
    fn text_in_a_cell_keeps_its_contrast() {
        for palette in [Palette::Sequential, Palette::Diverging] {
            for step in 0..LEVELS * 2 {
                let (l, c, h) =
                    palette.at((step % LEVELS) as f64 / (LEVELS - 1) as f64, step >= LEVELS);
                let ground = luminance(oklch(l, c, h));
                let ink = if ground > WHITE_BELOW {
                    luminance([0x11; 3])
                } else {
                    1.0
                };
                let contrast = (ground.max(ink) + 0.05) / (ground.min(ink) + 0.05);
                assert!(contrast >= 3.7, "{palette:?} {step}: {contrast}");
            }
        }
    }
}
