use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

/// Mean and variance per feature of what each task's pooled features looked like, so that a
/// discriminator can be shown stand-ins for tasks whose data is gone.
///
/// One memory per observed layer. It holds `2 · d_model` numbers per task and no example.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureMemory {
    d_model: usize,
    tasks: Vec<Moments>,
}

/// Running moments of one task (Chan, Golub and LeVeque 1979, update of partial sums).
#[derive(Clone, Debug, PartialEq)]
struct Moments {
    count: u64,
    mean: Vec<f64>,
    /// Sum of squared deviations from the mean.
    m2: Vec<f64>,
}

impl FeatureMemory {
    /// An empty memory of features of `d_model` numbers.
    pub fn new(d_model: usize) -> Self {
        Self {
            d_model,
            tasks: Vec::new(),
        }
    }

    /// How many features of `task` have been seen.
    pub fn count(&self, task: usize) -> u64 {
        self.tasks.get(task).map_or(0, |moments| moments.count)
    }

    /// Mean feature of `task`, if any was seen; `d_model` numbers.
    pub fn mean(&self, task: usize) -> Option<&[f64]> {
        self.seen(task).map(|moments| moments.mean.as_slice())
    }

    /// Variance per feature of `task` (divided by the count), if any was seen.
    pub fn variance(&self, task: usize) -> Option<Vec<f64>> {
        self.seen(task).map(|moments| {
            moments
                .m2
                .iter()
                .map(|m2| m2 / moments.count as f64)
                .collect()
        })
    }

    /// What is known of `task` as bytes, exact to the last bit: its count, then means and sums of squared deviations, little-endian;
    /// none where it was never observed.
    pub fn task_bytes(&self, task: usize) -> Option<Vec<u8>> {
        let moments = self.seen(task)?;
        let numbers = moments.mean.iter().chain(&moments.m2);
        let mut bytes = moments.count.to_le_bytes().to_vec();
        bytes.extend(numbers.flat_map(|number| number.to_le_bytes()));
        Some(bytes)
    }

    /// Takes over what [`Self::task_bytes`] gave for `task`; none where the bytes are not of a memory of that width.
    pub fn read_task(&mut self, task: usize, bytes: &[u8]) -> Option<()> {
        let (words, rest) = bytes.as_chunks::<8>();
        let (count, numbers) = words.split_first()?;
        if numbers.len() != 2 * self.d_model || !rest.is_empty() {
            return None;
        }
        let numbers: Vec<f64> = numbers
            .iter()
            .map(|word| f64::from_le_bytes(*word))
            .collect();
        let (mean, m2) = numbers.split_at(self.d_model);
        self.reach(task);
        self.tasks[task] = Moments {
            count: u64::from_le_bytes(*count),
            mean: mean.to_vec(),
            m2: m2.to_vec(),
        };
        Some(())
    }

    /// Features per row of the memory that gave so many bytes for a task; none where no memory does.
    pub fn width(task_bytes: usize) -> Option<usize> {
        let numbers = task_bytes.checked_sub(8)?;
        (numbers.is_multiple_of(16) && numbers > 0).then_some(numbers / 16)
    }

    /// Number of tasks up to the last that was observed.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Makes room for `task`.
    fn reach(&mut self, task: usize) {
        while self.tasks.len() <= task {
            self.tasks.push(Moments::new(self.d_model));
        }
    }

    /// Adds the rows of `features [n, d_model]` to what is known of `task`.
    ///
    /// Reads the tensor back from its device.
    ///
    /// # Panics
    ///
    /// When the features are not `d_model` wide.
    pub fn observe(&mut self, task: usize, features: Tensor<2>) {
        let [_, width] = features.dims();
        assert_eq!(width, self.d_model, "features of another width");
        self.reach(task);
        let values: Vec<f64> = features.into_data().iter::<f64>().collect();
        for row in values.chunks(self.d_model) {
            self.tasks[task].add(row);
        }
    }

    /// Draws `n` features of `task`, each number from its own normal distribution,
    /// `[n, d_model]` on `device`; `None` when the task was never observed.
    pub fn sample(
        &self,
        task: usize,
        n: usize,
        rng: &mut impl Rng,
        device: &Device,
    ) -> Option<Tensor<2>> {
        let mean = self.mean(task)?;
        let variance = self.variance(task)?;
        let values: Vec<f32> = (0..n)
            .flat_map(|_| mean.iter().zip(&variance))
            .map(|(mean, variance)| {
                let z: f64 = rng.sample(StandardNormal);
                (mean + variance.sqrt() * z) as f32
            })
            .collect();
        let data = TensorData::new(values, [n, self.d_model]);
        Some(Tensor::from_data(data, device))
    }

    fn seen(&self, task: usize) -> Option<&Moments> {
        self.tasks.get(task).filter(|moments| moments.count > 0)
    }
}

impl Moments {
    fn new(d_model: usize) -> Self {
        Self {
            count: 0,
            mean: vec![0.0; d_model],
            m2: vec![0.0; d_model],
        }
    }

    fn add(&mut self, row: &[f64]) {
        self.count += 1;
        let n = self.count as f64;
        for ((mean, m2), &x) in self.mean.iter_mut().zip(&mut self.m2).zip(row) {
            let before = x - *mean;
            *mean += before / n;
            *m2 += before * (x - *mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn moments_do_not_depend_on_how_the_batches_were_cut() {
        let device = Device::flex();
        let rows = [[1.0, 10.0], [3.0, 10.0], [5.0, 13.0], [7.0, 7.0]];
        let mut whole = FeatureMemory::new(2);
        whole.observe(1, Tensor::from_floats(rows, &device));
        let mut pieces = FeatureMemory::new(2);
        for row in rows {
            pieces.observe(1, Tensor::from_floats([row], &device));
        }
        assert_eq!(whole, pieces);
        assert_eq!(whole.mean(1), Some([4.0, 10.0].as_slice()));
        assert_eq!(whole.variance(1), Some(vec![5.0, 4.5]));
        assert_eq!((whole.count(0), whole.mean(0)), (0, None));
    }

    #[test]
    fn a_task_is_read_back_bit_for_bit() {
        let mut memory = FeatureMemory::new(1);
        memory.observe(1, Tensor::from_floats([[0.1], [0.7]], &Device::flex()));
        assert_eq!(memory.task_bytes(0), None);
        let bytes = memory.task_bytes(1).expect("task 1 was observed");
        let mut read = FeatureMemory::new(1);
        assert_eq!(read.read_task(1, &bytes), Some(()));
        assert_eq!(read, memory);
        assert_eq!(read.read_task(1, &bytes[1..]), None);
        assert_eq!(FeatureMemory::new(2).read_task(1, &bytes), None);
    }

    #[test]
    fn stand_ins_have_the_remembered_mean_and_variance() {
        let device = Device::flex();
        let mut memory = FeatureMemory::new(2);
        memory.observe(0, Tensor::from_floats([[-1.0, 5.0], [3.0, 5.0]], &device));
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let drawn = memory
            .sample(0, 20_000, &mut rng, &device)
            .expect("task 0 was observed");
        let mut again = FeatureMemory::new(2);
        again.observe(0, drawn);
        let (mean, variance) = (
            again.mean(0).expect("observed"),
            again.variance(0).expect("observed"),
        );
        assert!((mean[0] - 1.0).abs() < 0.05 && (variance[0] - 4.0).abs() < 0.15);
        assert!((mean[1] - 5.0).abs() < 1e-6 && variance[1] < 1e-9);
        assert!(memory.sample(1, 1, &mut rng, &device).is_none());
    }
}
