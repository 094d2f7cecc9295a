//! A router's state as bytes, exact to the last bit: counts as u64, then numbers, all little-endian.

use ndarray::s;

use super::{Matrix, TaskRouter};

impl TaskRouter {
    /// What training gave the router. The random map is not among it: it is a function of the configuration.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (inverse, weights) = (self.ridge.inverse(), self.ridge.weights());
        let counts = [inverse.nrows(), self.samples.len()]
            .into_iter()
            .chain(self.samples.iter().map(Matrix::nrows));
        let mut bytes: Vec<u8> = counts
            .flat_map(|count| (count as u64).to_le_bytes())
            .collect();
        let mut put = |value: f64| bytes.extend(value.to_le_bytes());
        put(self.threshold);
        // R is symmetric: one half says it all.
        for row in 0..inverse.nrows() {
            let half = inverse.slice(s![row, ..=row]);
            half.iter().for_each(|&value| put(value));
        }
        weights.iter().for_each(|&value| put(value));
        for samples in &self.samples {
            // They came as f32.
            bytes.extend(
                samples
                    .iter()
                    .flat_map(|&value| (value as f32).to_le_bytes()),
            );
        }
        bytes
    }

    /// This router with the state that [`Self::to_bytes`] gave; none where the bytes are not of a router of this configuration.
    pub fn read(mut self, bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let features = reader.count()?;
        if features != self.ridge.inverse().nrows() {
            return None;
        }
        let tasks = reader.count().filter(|&tasks| tasks <= bytes.len())?;
        let rows = (0..tasks)
            .map(|_| reader.count())
            .collect::<Option<Vec<_>>>()?;
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
        self.ridge.weights = reader.matrix(features, tasks, Reader::f64)?;
        let d_model = self.expansion.inputs();
        self.samples = rows
            .into_iter()
            .map(|rows| reader.matrix(rows, d_model, Reader::f32))
            .collect::<Option<_>>()?;
        reader.0.is_empty().then_some(self)
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(u64::from_le_bytes(self.take()?)).ok()
    }

    fn f64(&mut self) -> Option<f64> {
        Some(f64::from_le_bytes(self.take()?))
    }

    fn f32(&mut self) -> Option<f64> {
        Some(f32::from_le_bytes(self.take()?).into())
    }

    fn matrix(
        &mut self,
        rows: usize,
        columns: usize,
        number: impl Fn(&mut Self) -> Option<f64>,
    ) -> Option<Matrix> {
        // A damaged count must not ask for more memory than there are bytes.
        let count = rows.checked_mul(columns).filter(|n| *n <= self.0.len())?;
        let values = (0..count).map(|_| number(self)).collect::<Option<_>>()?;
        Matrix::from_shape_vec((rows, columns), values).ok()
    }
}
