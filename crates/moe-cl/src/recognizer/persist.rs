//! A recognizer's state as bytes, exact to the last bit: counts as u64, then numbers, all little-endian.

use ndarray::Axis;

use super::{Matrix, TaskRecognizer};

impl TaskRecognizer {
    /// What training gave it, in parts: the regression, then for each task the samples that the threshold is set on, which never
    /// change again. The random map is not among it: it is a function of the configuration.
    pub fn to_parts(&self) -> Vec<Vec<u8>> {
        let (inverse, weights) = (self.ridge.inverse(), self.ridge.weights());
        let mut bytes = (inverse.nrows() as u64).to_le_bytes().to_vec();
        let mut put = |value: f64| bytes.extend(value.to_le_bytes());
        put(self.threshold);
        // R is symmetric: one half says it all.
        for row in 0..inverse.nrows() {
            let (half, _) = inverse.row(row).split_at(Axis(0), row + 1);
            half.iter().for_each(|&value| put(value));
        }
        weights.iter().for_each(|&value| put(value));
        // They came as f32.
        let samples = self.samples.iter().map(to_f32_bytes);
        std::iter::once(bytes).chain(samples).collect()
    }

    /// This recognizer with the state that [`Self::to_parts`] gave; none where the parts are not of one of this configuration.
    pub fn read(mut self, parts: &[Vec<u8>]) -> Option<Self> {
        let (regression, samples) = parts.split_first()?;
        let mut reader = Reader(regression);
        let features = usize::try_from(reader.u64()?).ok()?;
        if features != self.ridge.inverse().nrows() {
            return None;
        }
        self.threshold = reader.f64()?;
        let mut inverse = Matrix::zeros((features, features));
        for row in 0..features {
            for column in 0..=row {
                let value = reader.f64()?;
                inverse[[row, column]] = value;
                inverse[[column, row]] = value;
            }
        }
        self.ridge.inverse = inverse;
        let weights = (0..features * samples.len()).map(|_| reader.f64());
        let weights = weights.collect::<Option<Vec<f64>>>()?;
        self.ridge.weights = Matrix::from_shape_vec((features, samples.len()), weights).ok()?;
        let d_model = self.expansion.inputs();
        let samples = samples.iter().map(|bytes| {
            let rows = bytes.len() / (d_model * size_of::<f32>());
            from_f32_bytes(rows, d_model, bytes)
        });
        self.samples = samples.collect::<Option<_>>()?;
        reader.0.is_empty().then_some(self)
    }
}

/// Its values as little-endian f32, row after row: exact where they came as f32.
pub fn to_f32_bytes(matrix: &Matrix) -> Vec<u8> {
    let values = matrix.iter();
    values
        .flat_map(|&value| (value as f32).to_le_bytes())
        .collect()
}

/// From what [`to_f32_bytes`] gave; none where that is of another size.
pub fn from_f32_bytes(rows: usize, columns: usize, bytes: &[u8]) -> Option<Matrix> {
    let (words, rest) = bytes.as_chunks();
    let values = words.iter().map(|word| f32::from_le_bytes(*word).into());
    let matrix = Matrix::from_shape_vec((rows, columns), values.collect()).ok()?;
    rest.is_empty().then_some(matrix)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take()?))
    }

    fn f64(&mut self) -> Option<f64> {
        Some(f64::from_le_bytes(self.take()?))
    }
}
