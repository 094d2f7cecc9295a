//! What the recognizer sees of a text.

use moe_core::{
    generate::{Side, pad},
    model::Decoder,
};
use moe_lora::mean_of_tokens;

use super::Matrix;

/// Texts per pass through the trunk.
const BATCH: usize = 32;

/// Keeps a row of zeros finite.
const EPSILON: f64 = 1e-12;

/// The mean, over each text's tokens, of the frozen base's features below layer `layer`, scaled to mean square one: `[texts, d_model]`.
///
/// The features are those that the layer would attend to, after its norm: raw, a few tokens outweigh all others by orders of
/// magnitude. Nothing here depends on data, so that sequential learning stays equal to joint learning.
///
/// # Panics
/// When a text has no token, or the base has fewer layers.
pub fn pooled_features(base: &Decoder, fill: u32, layer: usize, texts: &[Vec<u32>]) -> Matrix {
    let d_model = base.config().d_model;
    let mut features = Matrix::zeros((texts.len(), d_model));
    // Texts of like length together, so that little is padded.
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&index| texts[index].len());
    for batch in order.chunks(BATCH) {
        let rows: Vec<Vec<u32>> = batch.iter().map(|&index| texts[index].clone()).collect();
        let (tokens, real) = pad(&rows, fill, Side::Right, &base.device());
        let hidden = base.features(tokens, real.clone(), layer); // [batch, seq, d_model]
        let pooled = mean_of_tokens(hidden, real);
        let size = (pooled.clone() * pooled.clone()).mean_dim(1);
        let scaled = pooled / (size + EPSILON).sqrt();
        let values: Vec<f32> = scaled.into_data().iter::<f32>().collect();
        for (&index, values) in batch.iter().zip(values.chunks_exact(d_model)) {
            for (out, &value) in features.row_mut(index).iter_mut().zip(values) {
                *out = f64::from(value);
            }
        }
    }
    features
}
