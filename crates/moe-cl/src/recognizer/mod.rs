//! The task of a text when nobody says it: an analytic recognizer on the frozen base's early features (Any-SSR, arXiv 2503.13575).
//!
//! A text's tokens run through the embedding and the first few frozen layers, their mean is expanded by a fixed random
//! ReLU map, and a ridge regression scores the tasks. The regression is updated task by task and always equals the one
//! trained on all tasks at once, so the recognizer cannot forget.

mod cholesky;
mod expansion;
mod features;
mod persist;
mod ridge;

use moe_core::config::ModelConfig;
use ndarray::{Array1, Array2, ArrayView1, Axis};

pub use expansion::RandomExpansion;
pub use features::pooled_features;
pub(crate) use persist::{from_f32_bytes, to_f32_bytes};
pub use ridge::{RecursiveRidge, Singular};

use crate::{
    config::RouterConfig,
    error::{Error, Result},
};

/// `[rows, columns]` of f64 on the CPU: the recursion squares condition numbers, for which f32 is too coarse.
pub type Matrix = Array2<f64>;

/// Texts that the regression learns at once.
const BLOCK: usize = 256;

/// Training texts per task whose pooled features are kept, to set the threshold of what belongs to no known task.
const SAMPLES: usize = 64;

/// Names the task of a text, or says that it is none of those learnt.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRecognizer {
    layer: usize,
    accept: f64,
    expansion: RandomExpansion,
    ridge: RecursiveRidge,
    /// Per learnt task: pooled features of some of its training texts, `[texts, d_model]`.
    samples: Vec<Matrix>,
    /// Least confidence of a text that belongs to a known task.
    threshold: f64,
}

/// What the recognizer says of one text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recognized {
    /// The task that scores best.
    pub task: usize,
    /// How sure the recognizer is that the text belongs to a known task at all; more is surer.
    pub confidence: f64,
    /// Whether that reaches the threshold.
    pub known: bool,
}

impl TaskRecognizer {
    /// One that knows no task, for a base of that shape.
    ///
    /// # Errors
    /// When the base has fewer layers than `router.layer`.
    pub fn new(config: &RouterConfig, base: &ModelConfig) -> Result<Self> {
        let layers = base.num_layers;
        let layer = config.layer.unwrap_or(layers.div_ceil(8));
        if layer > layers {
            return Err(Error::RecognizerLayer {
                asked: layer,
                layers,
            });
        }
        Ok(Self {
            layer,
            accept: config.accept,
            expansion: RandomExpansion::new(base.d_model, config.features, config.seed),
            ridge: RecursiveRidge::new(config.features, config.ridge),
            samples: Vec::new(),
            threshold: f64::NEG_INFINITY,
        })
    }

    /// Number of base layers below the features.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// Number of tasks learnt.
    pub fn tasks(&self) -> usize {
        self.samples.len()
    }

    /// Learns the next task from the `pooled [n, d_model]` features of its training texts.
    ///
    /// # Errors
    /// When `router.ridge` is too small, or the features are not finite.
    pub fn learn(&mut self, pooled: &Matrix) -> Result<()> {
        let task = self.tasks();
        for block in pooled.axis_chunks_iter(Axis(0), BLOCK) {
            let mut targets = Matrix::zeros((block.nrows(), task + 1));
            targets.column_mut(task).fill(1.0);
            self.ridge
                .learn(&self.expansion.forward(&block), &targets)?;
        }
        let kept = pooled.nrows().min(SAMPLES);
        self.samples
            .push(pooled.view().split_at(Axis(0), kept).0.to_owned());
        self.calibrate();
        Ok(())
    }

    /// The task of each row of `pooled [n, d_model]`.
    ///
    /// # Panics
    /// When no task has been learnt.
    pub fn recognize(&self, pooled: &Matrix) -> Vec<Recognized> {
        assert!(self.tasks() > 0, "a recognizer that has learnt a task");
        let expanded = self.expansion.forward(pooled);
        let leverages = self.ridge.leverages(&expanded);
        let scores = self.ridge.predict(&expanded);
        scores
            .rows()
            .into_iter()
            .zip(leverages)
            .map(|(scores, leverage)| {
                let (task, confidence) = best(scores, leverage);
                Recognized {
                    task,
                    confidence,
                    known: confidence >= self.threshold,
                }
            })
            .collect()
    }

    /// Sets the threshold that the share `accept` of the kept training texts reaches, each scored as if it had not been trained on.
    ///
    /// Leaving row `i` out of a ridge regression is exact and free: its score becomes `(ŷ_i − h_i y_i) / (1 − h_i)` and its
    /// leverage `h_i / (1 − h_i)`, where `h_i = x_i R x_iᵀ < 1`.
    fn calibrate(&mut self) {
        let mut confidences = Vec::new();
        for (task, samples) in self.samples.iter().enumerate() {
            let expanded = self.expansion.forward(samples);
            let leverages = self.ridge.leverages(&expanded);
            let scores = self.ridge.predict(&expanded);
            for (scores, leverage) in scores.rows().into_iter().zip(leverages) {
                let left_out: Array1<f64> = scores
                    .iter()
                    .enumerate()
                    .map(|(column, score)| {
                        let target = f64::from(u8::from(column == task));
                        (score - leverage * target) / (1.0 - leverage)
                    })
                    .collect();
                confidences.push(best(left_out.view(), leverage / (1.0 - leverage)).1);
            }
        }
        confidences.sort_by(f64::total_cmp);
        let refused = ((1.0 - self.accept) * confidences.len() as f64).floor() as usize;
        self.threshold = confidences
            .get(refused.min(confidences.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NEG_INFINITY);
    }
}

/// The best-scoring task and the confidence in it: its score in units of its standard deviation, `ŷ / √(1 + h)`, since the
/// data may leave open (leverage `h`) what a text like this scores.
fn best(scores: ArrayView1<f64>, leverage: f64) -> (usize, f64) {
    let (task, score) = scores
        .iter()
        .copied()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
        .unwrap_or((0, f64::NEG_INFINITY));
    (task, score / (1.0 + leverage).sqrt())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rand::RngExt;

    use super::*;
    use crate::seeds::{Purpose, Seeds};

    const D_MODEL: usize = 16;

    fn base() -> ModelConfig {
        let config = serde_json::json!({
            "model_type": "llama", "vocab_size": 8, "hidden_size": D_MODEL, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "tie_word_embeddings": true, "max_position_embeddings": 64
        });
        ModelConfig::from_json(&config.to_string(), Path::new("tiny")).unwrap()
    }

    fn router() -> TaskRecognizer {
        let config = RouterConfig {
            features: 64,
            ..RouterConfig::default()
        };
        TaskRecognizer::new(&config, &base()).unwrap()
    }

    /// Texts around the corner `task` of a cube.
    fn texts(task: usize, count: usize, place: usize) -> Matrix {
        let mut rng = Seeds(task as u64).rng(Purpose::RandomFeatures, place, 1);
        let values = (0..count * D_MODEL).map(|index| {
            let centre = if ((index % D_MODEL) >> task) & 1 == 0 {
                1.0
            } else {
                -1.0
            };
            centre + rng.random_range(-0.5f32..0.5)
        });
        Matrix::from_shape_vec((count, D_MODEL), values.map(f64::from).collect()).unwrap()
    }

    fn taught(tasks: usize) -> TaskRecognizer {
        let mut router = router();
        (0..tasks).for_each(|task| router.learn(&texts(task, 300, 0)).unwrap());
        router
    }

    #[test]
    fn tasks_far_apart_are_told_apart_and_strangers_are_refused() {
        let router = taught(3);
        for task in 0..3 {
            let routed = router.recognize(&texts(task, 50, 1));
            assert!(routed.iter().all(|routed| routed.task == task));
            assert!(routed.iter().filter(|routed| routed.known).count() > 40);
        }
        let strangers = router.recognize(&texts(3, 50, 1));
        assert!(strangers.iter().filter(|routed| routed.known).count() < 10);
    }

    #[test]
    fn the_threshold_accepts_the_asked_share_of_unseen_texts() {
        let router = taught(2);
        let routed = router.recognize(&texts(1, 400, 2));
        let share = routed.iter().filter(|routed| routed.known).count() as f64 / 400.0;
        assert!((share - 0.95).abs() < 0.06, "{share}");
    }

    #[test]
    fn a_router_written_and_read_back_is_the_same_and_goes_on_the_same() {
        let mut router = taught(2);
        let mut read = self::router().read(&router.to_parts()).unwrap();
        assert_eq!(read, router);
        for router in [&mut router, &mut read] {
            router.learn(&texts(2, 30, 0)).unwrap();
        }
        assert_eq!(read, router);
        assert!(self::router().read(&router.to_parts()[..1]).is_none());
    }

    #[test]
    fn a_layer_that_the_base_lacks_is_refused() {
        let config = RouterConfig {
            layer: Some(3),
            ..RouterConfig::default()
        };
        let error = TaskRecognizer::new(&config, &base())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("router.layer") && error.contains('2'),
            "{error}"
        );
    }
}
