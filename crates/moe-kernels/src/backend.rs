//! The operations as Burn's dispatch sees them: on the CPU, and with autodiff on any back end that has them.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};

use crate::attention::Attention;
use crate::autodiff::{Operation, one, several};
use crate::grouped_linear::GroupedLinear;
use crate::linear::{FrozenLinear, FrozenLinears};
use crate::moe_ffn::MoeFfnInputs;
use crate::rms_norm::{AddRmsNorm, RmsNorm};
use crate::sparse_ffn::SparseFfn;
use crate::swiglu::Swiglu;
use crate::token_cross_entropy::TokenCrossEntropy;
use crate::token_gate::TokenGate;

/// What a back end does by itself. The functions of this crate fall back to Burn's operations for all others.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    /// See [`linear()`](fn@crate::linear).
    fn frozen_linear(#[extension_type] it: FrozenLinear<Self>) -> FloatTensor<Self>;

    /// See [`linears()`](fn@crate::linears).
    fn frozen_linears(
        #[extension_type] it: FrozenLinears<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// See [`grouped_linear()`](fn@crate::grouped_linear).
    fn grouped_linear(#[extension_type] it: GroupedLinear<Self>) -> FloatTensor<Self>;

    /// See [`rms_norm()`](fn@crate::rms_norm).
    fn rms_norm(#[extension_type] it: RmsNorm<Self>) -> FloatTensor<Self>;

    /// See [`add_rms_norm()`](fn@crate::add_rms_norm).
    fn add_rms_norm(
        #[extension_type] it: AddRmsNorm<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// See [`token_gate()`](fn@crate::token_gate).
    fn token_gate(#[extension_type] it: TokenGate<Self>) -> FloatTensor<Self>;

    /// See [`swiglu()`](fn@crate::swiglu).
    fn swiglu(#[extension_type] it: Swiglu<Self>) -> FloatTensor<Self>;

    /// See [`token_cross_entropy()`](fn@crate::token_cross_entropy).
    fn token_cross_entropy(#[extension_type] it: TokenCrossEntropy<Self>) -> FloatTensor<Self>;

    /// See [`attention()`](fn@crate::attention).
    fn attention(#[extension_type] it: Attention<Self>) -> FloatTensor<Self>;

    /// See [`sparse_ffn()`](fn@crate::sparse_ffn).
    fn sparse_ffn(#[extension_type] it: SparseFfn<Self>) -> FloatTensor<Self>;

    /// See [`moe_ffn()`](fn@crate::moe_ffn): the mixture, and the pooled output, of no rows when no expert is observed.
    fn moe_ffn(#[extension_type] it: MoeFfnInputs<Self>) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl FusedOps for Flex {
    fn frozen_linear(it: FrozenLinear<Self>) -> FloatTensor<Self> {
        only(it.outputs())
    }

    fn frozen_linears(
        it: FrozenLinears<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        it.outputs().into()
    }

    fn grouped_linear(it: GroupedLinear<Self>) -> FloatTensor<Self> {
        only(it.outputs())
    }

    fn rms_norm(it: RmsNorm<Self>) -> FloatTensor<Self> {
        only(it.outputs())
    }

    fn add_rms_norm(it: AddRmsNorm<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        it.outputs().into()
    }

    fn token_gate(it: TokenGate<Self>) -> FloatTensor<Self> {
        only(it.outputs())
    }

    fn swiglu(it: Swiglu<Self>) -> FloatTensor<Self> {
        only(it.outputs())
    }

    fn token_cross_entropy(it: TokenCrossEntropy<Self>) -> FloatTensor<Self> {
        only(it.outputs())
    }

    fn attention(it: Attention<Self>) -> FloatTensor<Self> {
        only(it.outputs())
    }

    fn sparse_ffn(it: SparseFfn<Self>) -> FloatTensor<Self> {
        only(it.outputs())
    }

    fn moe_ffn(it: MoeFfnInputs<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        it.outputs().into()
    }
}

fn only<T>([it]: [T; 1]) -> T {
    it
}

impl<B, C> FusedOps for Autodiff<B, C>
where
    B: Backend,
    C: CheckpointStrategy,
    FrozenLinear<B>: Operation<B, 1, 1>,
    FrozenLinears<B>: Operation<B, 1, 3>,
    GroupedLinear<B>: Operation<B, 2, 1>,
    RmsNorm<B>: Operation<B, 1, 1>,
    AddRmsNorm<B>: Operation<B, 2, 2>,
    TokenGate<B>: Operation<B, 2, 1>,
    Swiglu<B>: Operation<B, 2, 1>,
    TokenCrossEntropy<B>: Operation<B, 1, 1>,
    Attention<B>: Operation<B, 3, 1>,
    SparseFfn<B>: Operation<B, 5, 1>,
    MoeFfnInputs<B>: Operation<B, 8, 2>,
{
    fn frozen_linear(it: FrozenLinear<Self>) -> FloatTensor<Self> {
        let weight = it.weight;
        one::<B, C, _, _>([it.x], |[x]| FrozenLinear { x, weight })
    }

    fn frozen_linears(
        it: FrozenLinears<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let weights = it.weights;
        several::<B, C, _, _, _>([it.x], |[x]| FrozenLinears { x, weights }).into()
    }

    fn grouped_linear(it: GroupedLinear<Self>) -> FloatTensor<Self> {
        let bounds = it.bounds;
        one::<B, C, _, _>([it.x, it.weight], |[x, weight]| GroupedLinear {
            x,
            weight,
            bounds,
        })
    }

    fn rms_norm(it: RmsNorm<Self>) -> FloatTensor<Self> {
        let (gamma, epsilon) = (it.gamma.into_primitive(), it.epsilon);
        one::<B, C, _, _>([it.x], |[x]| RmsNorm { x, gamma, epsilon })
    }

    fn add_rms_norm(it: AddRmsNorm<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (gamma, epsilon) = (it.gamma.into_primitive(), it.epsilon);
        several::<B, C, _, _, _>([it.x, it.y], |[x, y]| AddRmsNorm {
            x,
            y,
            gamma,
            epsilon,
        })
        .into()
    }

    fn token_gate(it: TokenGate<Self>) -> FloatTensor<Self> {
        one::<B, C, _, _>([it.x, it.weight], |[x, weight]| TokenGate { x, weight })
    }

    fn swiglu(it: Swiglu<Self>) -> FloatTensor<Self> {
        one::<B, C, _, _>([it.gate, it.up], |[gate, up]| Swiglu { gate, up })
    }

    fn token_cross_entropy(it: TokenCrossEntropy<Self>) -> FloatTensor<Self> {
        let (weight, targets) = (it.weight, it.targets);
        one::<B, C, _, _>([it.hidden], |[hidden]| TokenCrossEntropy {
            hidden,
            weight,
            targets,
        })
    }

    fn attention(it: Attention<Self>) -> FloatTensor<Self> {
        let [cos, sin, real] = [it.cos, it.sin, it.real].map(|constant| constant.into_primitive());
        let shape = it.shape;
        one::<B, C, _, _>([it.query, it.key, it.value], |[query, key, value]| {
            Attention {
                query,
                key,
                value,
                cos,
                sin,
                real,
                shape,
            }
        })
    }

    fn sparse_ffn(it: SparseFfn<Self>) -> FloatTensor<Self> {
        let entries = it.entries;
        one::<B, C, _, _>(
            [it.x, it.weights, it.gate, it.up, it.down],
            |[x, weights, gate, up, down]| SparseFfn {
                x,
                gate,
                up,
                down,
                weights,
                entries,
            },
        )
    }

    fn moe_ffn(it: MoeFfnInputs<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (base, shares) = (it.base, it.shares.into_primitive());
        let settings = it.settings;
        let learnt = [
            it.x, it.weights, it.gate_a, it.gate_b, it.up_a, it.up_b, it.down_a, it.down_b,
        ];
        several::<B, C, _, _, _>(
            learnt,
            |[x, weights, gate_a, gate_b, up_a, up_b, down_a, down_b]| MoeFfnInputs {
                x,
                weights,
                gate_a,
                gate_b,
                up_a,
                up_b,
                down_a,
                down_b,
                base,
                shares,
                settings,
            },
        )
        .into()
    }
}
