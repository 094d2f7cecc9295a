use burn::module::{Param, ParamId};
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor, TensorData, bf16};
use moe_kernels::Blocks;
use rayon::prelude::*;

use super::source::Source;
use super::{
    Attention, BaseDtype, Decoder, DecoderLayer, Embedding, FeedForward, FeedForwardBlock, Linear,
    Rope, SharedExpert, SparseFeedForward, Weight,
};
use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, QkNorm, SparseConfig};
use crate::error::Result;

impl Decoder {
    /// Reads every tensor of `checkpoint` onto `device` (the plain one, not an autodiff device).
    ///
    /// # Errors
    ///
    /// A tensor cannot be read. (Missing, left-over and wrongly shaped ones are refused by
    /// [`Checkpoint::open`].)
    pub fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        Self::load_as(checkpoint, BaseDtype::F32, device)
    }

    /// As [`Self::load`] (which is in f32), with its matrices in `dtype`: one after the other, so that there is never a second copy of the model.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], and when the device has no such numbers.
    pub fn load_as(checkpoint: &Checkpoint, dtype: BaseDtype, device: &Device) -> Result<Self> {
        dtype.check(device)?;
        assemble(checkpoint.config(), dtype, checkpoint, device)
    }
}

/// Builds a decoder from a source of row-major tensors in Hugging Face names and shapes
/// (`[out, in]` for a linear layer).
pub(super) fn assemble(
    config: &ModelConfig,
    dtype: BaseDtype,
    source: impl Source,
    device: &Device,
) -> Result<Decoder> {
    let mut parts = Parts {
        config,
        dtype,
        source,
        device,
        keeps_blocks: dtype == BaseDtype::Stored && reads_blocks(device),
    };
    let (d_model, vocab) = (config.d_model, config.vocab_size);
    Ok(Decoder {
        embedding: Embedding {
            weight: parts.embedding("model.embed_tokens", [vocab, d_model])?,
        },
        layers: (0..config.num_layers)
            .map(|index| parts.layer(index))
            .collect::<Result<_>>()?,
        norm: parts.norm("model.norm", d_model)?,
        lm_head: match config.tie_word_embeddings {
            true => None,
            false => Some(parts.linear("lm_head", d_model, vocab, false)?),
        },
        rope: Rope::new(config),
        config: config.clone(),
    })
}

/// Whether products on `device` read blocks as they lie.
fn reads_blocks(device: &Device) -> bool {
    moe_kernels::has_kernels(&Tensor::<1>::zeros([1], device))
}

struct Parts<'a, S> {
    config: &'a ModelConfig,
    dtype: BaseDtype,
    source: S,
    device: &'a Device,
    keeps_blocks: bool,
}

impl<S: Source> Parts<'_, S> {
    fn layer(&mut self, index: usize) -> Result<DecoderLayer> {
        let (d_model, prefix) = (self.config.d_model, format!("model.layers.{index}"));
        Ok(DecoderLayer {
            input_norm: self.norm(&format!("{prefix}.input_layernorm"), d_model)?,
            attention: self.attention(&format!("{prefix}.self_attn"))?,
            post_attention_norm: self
                .norm(&format!("{prefix}.post_attention_layernorm"), d_model)?,
            feed_forward: match self.config.sparse_in(index) {
                Some(sparse) => FeedForwardBlock::Sparse(self.sparse(sparse, &prefix)?),
                None => {
                    let d_ff = self.config.d_ff;
                    FeedForwardBlock::Dense(self.feed_forward(&format!("{prefix}.mlp"), d_ff)?)
                }
            },
        })
    }

    fn feed_forward(&mut self, prefix: &str, d_ff: usize) -> Result<FeedForward> {
        let d_model = self.config.d_model;
        Ok(FeedForward {
            gate: self.linear(&format!("{prefix}.gate_proj"), d_model, d_ff, false)?,
            up: self.linear(&format!("{prefix}.up_proj"), d_model, d_ff, false)?,
            down: self.linear(&format!("{prefix}.down_proj"), d_ff, d_model, false)?,
        })
    }

    fn sparse(&mut self, sparse: &SparseConfig, layer: &str) -> Result<SparseFeedForward> {
        let (d_model, d_ff) = (self.config.d_model, sparse.d_ff);
        let names = sparse.names;
        let prefix = format!("{layer}.{}", names.block());
        let [gate, up, down] = names.matrices();
        Ok(SparseFeedForward {
            router: self.small(&format!("{prefix}.gate"), d_model, sparse.num_experts)?,
            gate: self.experts(&prefix, gate, [sparse.num_experts, d_model, d_ff])?,
            up: self.experts(&prefix, up, [sparse.num_experts, d_model, d_ff])?,
            down: self.experts(&prefix, down, [sparse.num_experts, d_ff, d_model])?,
            shared: match sparse.shared_d_ff {
                Some(d_ff) => Some(SharedExpert {
                    feed_forward: self.feed_forward(&format!("{prefix}.shared_expert"), d_ff)?,
                    gate: self.small(&format!("{prefix}.shared_expert_gate"), d_model, 1)?,
                }),
                None => None,
            },
            top_k: sparse.top_k,
            norm_topk_prob: sparse.norm_topk_prob,
        })
    }

    /// One matrix of every expert, each turned, `[experts, d_in, d_out]`.
    fn experts(
        &mut self,
        prefix: &str,
        matrix: &str,
        [experts, d_in, d_out]: [usize; 3],
    ) -> Result<Param<Tensor<3>>> {
        let mut turned = Vec::new();
        for expert in 0..experts {
            let name = format!("{prefix}.experts.{expert}.{matrix}");
            turned.push(self.turned(&name, d_in, d_out)?.reshape([1, d_in, d_out]));
        }
        Ok(parameter(Tensor::cat(turned, 0)))
    }

    fn attention(&mut self, prefix: &str) -> Result<Attention> {
        let ModelConfig {
            d_model,
            num_heads,
            num_kv_heads,
            head_dim,
            attention_bias: bias,
            qk_norm,
            ..
        } = *self.config;
        let (queries, keys) = (num_heads * head_dim, num_kv_heads * head_dim);
        let norm = |parts: &mut Self, name: &str, all: usize| {
            let size = match qk_norm {
                QkNorm::None => return Ok(None),
                QkNorm::Head => head_dim,
                QkNorm::Projection => all,
            };
            parts.norm(&format!("{prefix}.{name}"), size).map(Some)
        };
        Ok(Attention {
            q_norm: norm(self, "q_norm", queries)?,
            k_norm: norm(self, "k_norm", keys)?,
            query: self.linear(&format!("{prefix}.q_proj"), d_model, queries, bias)?,
            key: self.linear(&format!("{prefix}.k_proj"), d_model, keys, bias)?,
            value: self.linear(&format!("{prefix}.v_proj"), d_model, keys, bias)?,
            output: self.linear(&format!("{prefix}.o_proj"), queries, d_model, false)?,
            num_heads,
            num_kv_heads,
            head_dim,
        })
    }

    fn linear(&mut self, name: &str, d_in: usize, d_out: usize, bias: bool) -> Result<Linear> {
        Ok(Linear {
            weight: match self.blocks(name, [d_out, d_in])? {
                Some(blocks) => Weight::Blocks(blocks),
                None => Weight::new(self.turned(name, d_in, d_out)?),
            },
            bias: match bias {
                true => Some(self.tensor(&format!("{name}.bias"), [d_out])?),
                false => None,
            },
        })
    }

    /// A layer without a bias that is no blocks however it is stored: the small ones that choose.
    fn small(&mut self, name: &str, d_in: usize, d_out: usize) -> Result<Linear> {
        Ok(Linear {
            weight: Weight::new(self.turned(name, d_in, d_out)?),
            bias: None,
        })
    }

    fn blocks(&mut self, name: &str, dims: [usize; 2]) -> Result<Option<Blocks>> {
        match self.keeps_blocks {
            true => self.source.blocks(&format!("{name}.weight"), dims),
            false => Ok(None),
        }
    }

    /// The stored `[d_out, d_in]` matrix is turned once, so that products read `[d_in, d_out]`.
    fn turned(&mut self, name: &str, d_in: usize, d_out: usize) -> Result<Tensor<2>> {
        let stored = self
            .source
            .numbers(&format!("{name}.weight"), &[d_out, d_in])?;
        let numbers = match self.dtype {
            BaseDtype::F32 | BaseDtype::Stored => {
                TensorData::new(transpose(&stored, d_out, d_in, |x| x), [d_in, d_out])
            }
            BaseDtype::Bf16 => {
                let turned = transpose(&stored, d_out, d_in, bf16::from_f32);
                TensorData::new(turned, [d_in, d_out])
            }
        };
        Ok(self.matrix(numbers))
    }

    fn embedding(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight> {
        if let Some(blocks) = self.blocks(name, shape)? {
            return Ok(Weight::Blocks(blocks));
        }
        let stored = self.source.numbers(&format!("{name}.weight"), &shape)?;
        Ok(Weight::new(self.matrix(match self.dtype {
            BaseDtype::F32 | BaseDtype::Stored => TensorData::new(stored, shape),
            BaseDtype::Bf16 => {
                let rounded: Vec<bf16> = stored.par_iter().map(|x| bf16::from_f32(*x)).collect();
                TensorData::new(rounded, shape)
            }
        })))
    }

    fn matrix(&self, numbers: TensorData) -> Tensor<2> {
        Tensor::from_data(numbers, (self.device, self.dtype.dtype()))
    }

    fn norm(&mut self, name: &str, size: usize) -> Result<RmsNorm> {
        let mut norm = RmsNormConfig::new(size)
            .with_epsilon(self.config.rms_norm_eps)
            .init(self.device);
        norm.gamma = self.tensor(&format!("{name}.weight"), [size])?;
        Ok(norm)
    }

    fn tensor<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Param<Tensor<D>>> {
        let values = TensorData::new(self.source.numbers(name, &shape)?, shape);
        Ok(parameter(Tensor::from_data(values, self.device)))
    }
}

fn parameter<const D: usize>(value: Tensor<D>) -> Param<Tensor<D>> {
    Param::initialized(ParamId::new(), value)
}

/// Row-major `[rows, columns]` → row-major `[columns, rows]` of other numbers, in square blocks that fit the cache.
fn transpose<T: Clone + Default + Send>(
    matrix: &[f32],
    rows: usize,
    columns: usize,
    number: impl Fn(f32) -> T + Sync,
) -> Vec<T> {
    const BLOCK: usize = 32;
    let mut turned = vec![T::default(); matrix.len()];
    turned
        .par_chunks_mut((BLOCK * rows).max(1))
        .enumerate()
        .for_each(|(block, out)| {
            let first = block * BLOCK;
            for row_start in (0..rows).step_by(BLOCK) {
                for (offset, line) in out.chunks_exact_mut(rows).enumerate() {
                    for row in row_start..(row_start + BLOCK).min(rows) {
                        line[row] = number(matrix[row * columns + first + offset]);
                    }
                }
            }
        });
    turned
}

#[cfg(test)]
mod tests {
    #[test]
    fn transposing_twice_is_the_identity() {
        let (rows, columns) = (37, 70);
        let matrix: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let turned = super::transpose(&matrix, rows, columns, |x| x);
        assert_eq!(turned[3 * rows + 5], matrix[5 * columns + 3]);
        assert_eq!(super::transpose(&turned, columns, rows, |x| x), matrix);
    }
}
