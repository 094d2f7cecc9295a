//! Task vectors: how like each task a text is (MoCL, arXiv 2404.00228).

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData, activation::softmax},
};
use rand::{Rng, RngExt};

/// A vector per task, and the map of a text's mean embedding into their space.
#[derive(Module, Debug)]
pub struct TaskVectors {
    /// `[d_model, d_model]`, no bias.
    pub projection: Param<Tensor<2>>,
    /// `[tasks, d_model]`.
    pub vectors: Param<Tensor<2>>,
}

impl TaskVectors {
    /// A projection uniform in ±1/√`d_model`, and no task yet.
    pub fn new(d_model: usize, rng: &mut impl Rng, device: &Device) -> Self {
        let bound = 1.0 / (d_model as f32).sqrt();
        let values: Vec<f32> = (0..d_model * d_model)
            .map(|_| rng.random_range(-bound..bound))
            .collect();
        let projection = Tensor::from_data(TensorData::new(values, [d_model, d_model]), device);
        Self::from_tensors(projection, Tensor::zeros([0, d_model], device))
    }

    /// All zeros, for so many tasks.
    pub fn zeros(d_model: usize, tasks: usize, device: &Device) -> Self {
        let projection = Tensor::zeros([d_model, d_model], device);
        Self::from_tensors(projection, Tensor::zeros([tasks, d_model], device))
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        let [tasks, _] = self.vectors.dims();
        tasks
    }

    /// From `projection [d_model, d_model]` and `vectors [tasks, d_model]`, trained from there on.
    pub fn from_tensors(projection: Tensor<2>, vectors: Tensor<2>) -> Self {
        Self {
            projection: Param::from_tensor(projection.detach()),
            vectors: Param::from_tensor(vectors.detach()),
        }
    }

    /// Adds a task, its vector uniform in ±1; only its direction counts.
    pub fn push(&mut self, rng: &mut impl Rng) {
        let [tasks, d_model] = self.vectors.dims();
        let old = self.vectors.val().detach();
        let values: Vec<f32> = (0..d_model).map(|_| rng.random_range(-1.0..1.0)).collect();
        let new = Tensor::from_data(TensorData::new(values, [1, d_model]), &old.device());
        let vectors = match tasks {
            0 => new,
            _ => Tensor::cat(vec![old, new], 0),
        };
        self.vectors = Param::from_tensor(vectors.detach());
    }

    /// Cosine of every text to every task, `[batch, tasks]`, of the texts' mean embeddings `[batch, d_model]`.
    pub fn cosines(&self, mean_embedding: Tensor<2>) -> Tensor<2> {
        let query = unit(mean_embedding.matmul(self.projection.val()));
        query.matmul(unit(self.vectors.val()).transpose())
    }

    /// `cosines [batch, tasks]` → weights of `tasks`, `[batch, tasks.len()]`: the softmax over their cosines.
    pub fn weights(cosines: Tensor<2>, tasks: &[usize]) -> Tensor<2> {
        let columns = tasks.iter().map(|&task| cosines.clone().narrow(1, task, 1));
        softmax(Tensor::cat(columns.collect(), 1), 1)
    }
}

/// Rows of length one; a row of zeros stays.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).add_scalar(1e-12).sqrt();
    x / length
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_text_weighs_the_task_whose_vector_it_points_to_most() {
        let device = Device::flex();
        let vectors = Tensor::from_data([[2.0, 0.0], [0.0, 0.1]], &device);
        let tasks = TaskVectors::from_tensors(Tensor::eye(2, &device), vectors);
        let cosines = tasks.cosines(Tensor::from_data([[0.0, 5.0]], &device));
        let weights: Vec<f32> = TaskVectors::weights(cosines, &[0, 1])
            .into_data()
            .iter::<f32>()
            .collect();
        let e = std::f32::consts::E;
        assert!((weights[1] - e / (1.0 + e)).abs() < 1e-6, "{weights:?}");
    }

    #[test]
    fn a_new_task_leaves_the_vectors_of_the_others() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut tasks = TaskVectors::new(3, &mut rng, &Device::flex().autodiff());
        tasks.push(&mut rng);
        let first = tasks.vectors.val().into_data();
        tasks.push(&mut rng);
        assert_eq!(tasks.vectors.dims(), [2, 3]);
        assert_eq!(tasks.vectors.val().narrow(0, 0, 1).into_data(), first);
    }
}
