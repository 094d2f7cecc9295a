use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Which end of a row is filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the tokens, so that all rows end together: for generation.
    Left,
    /// After the tokens: for training.
    Right,
}

/// Rows of different lengths as `tokens [batch, longest]` and `real [batch, longest]` (true = real
/// token).
///
/// # Panics
///
/// When there are no rows, or all are empty.
pub fn pad(
    rows: &[Vec<u32>],
    fill: u32,
    side: Side,
    device: &Device,
) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let seq = rows.iter().map(Vec::len).max().unwrap_or(0);
    assert!(seq > 0, "a batch needs at least one token");
    let mut tokens = vec![i64::from(fill); rows.len() * seq];
    let mut real = vec![false; rows.len() * seq];
    for (index, row) in rows.iter().enumerate() {
        let start = match side {
            Side::Left => (index + 1) * seq - row.len(),
            Side::Right => index * seq,
        };
        for (place, token) in row.iter().enumerate() {
            tokens[start + place] = i64::from(*token);
            real[start + place] = true;
        }
    }
    let shape = [rows.len(), seq];
    (
        Tensor::from_data(TensorData::new(tokens, shape), device),
        Tensor::from_data(TensorData::new(real, shape), device),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_together_on_the_left_and_start_together_on_the_right() {
        let rows = [vec![1, 2, 3], vec![4]];
        for (side, expected) in [
            (Side::Left, [1i64, 2, 3, 9, 9, 4]),
            (Side::Right, [1, 2, 3, 4, 9, 9]),
        ] {
            let (tokens, real) = pad(&rows, 9, side, &Device::flex());
            let tokens: Vec<i64> = tokens.into_data().iter::<i64>().collect();
            assert_eq!(tokens, expected);
            let real: Vec<bool> = real.into_data().iter::<bool>().collect();
            assert_eq!(real, expected.map(|token| token != 9));
        }
    }
}
