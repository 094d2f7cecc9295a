//! `str` made longer.

use minijinja::Error;

use crate::chat::python::arguments::refuse;

/// Longest text that padding makes: a template of a stranger must not cost the memory.
const MOST: usize = 1 << 20;

/// How many characters are lacking to `width`.
fn lacking(text: &str, width: i64) -> Result<usize, Error> {
    let width = usize::try_from(width).unwrap_or(0);
    match width <= MOST {
        true => Ok(width.saturating_sub(text.chars().count())),
        false => Err(refuse(format!("a width of {width} is too large"))),
    }
}

/// `center`, `ljust` or `rjust`.
pub(super) fn pad(
    text: &str,
    method: &str,
    width: i64,
    fill: Option<&str>,
) -> Result<String, Error> {
    let fill = fill.unwrap_or(" ");
    if fill.chars().count() != 1 {
        return Err(refuse(
            "the fill character must be exactly one character long",
        ));
    }
    let lacking = lacking(text, width)?;
    let left = match method {
        "ljust" => 0,
        "rjust" => lacking,
        // The odd one goes to the left where the width is odd too (CPython's rule).
        _ => lacking / 2 + usize::from(lacking % 2 == 1 && width % 2 == 1),
    };
    Ok(fill.repeat(left) + text + &fill.repeat(lacking - left))
}

/// `zfill`: zeros after the sign.
pub(super) fn zeros(text: &str, width: i64) -> Result<String, Error> {
    let zeros = "0".repeat(lacking(text, width)?);
    let sign = usize::from(text.starts_with(['+', '-']));
    let (sign, digits) = text.split_at(sign);
    Ok(format!("{sign}{zeros}{digits}"))
}

/// `expandtabs`.
pub(super) fn tabs(text: &str, size: i64) -> Result<String, Error> {
    let size = usize::try_from(size).unwrap_or(0);
    let tabs = text.matches('\t').count();
    if tabs.saturating_mul(size) > MOST {
        return Err(refuse(format!("a tab of {size} characters is too large")));
    }
    let (mut out, mut column) = (String::new(), 0usize);
    for c in text.chars() {
        match c {
            '\t' => {
                let spaces = size - column.checked_rem(size).unwrap_or(0);
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(out)
}
