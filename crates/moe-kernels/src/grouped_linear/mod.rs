//! Products of rows that lie group by group, each group with a matrix of its own.

#[cfg(feature = "flex")]
mod cpu;

#[cfg(feature = "flex")]
use burn::backend::{Backend, ExtensionType, tensor::FloatTensor};
use burn::tensor::{Tensor, module};

/// [`grouped_linear()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct GroupedLinear<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) weight: FloatTensor<B>,
    pub(crate) bounds: Vec<usize>,
}

/// `y_i = x_i W_g` for every row i of group g, which has the rows `bounds[g]..bounds[g + 1]`; a group may have none.
///
/// - `x [rows, d_in]`
/// - `weight [groups, d_in, d_out]`, f32, or bf16 where it is not trained (see [`linear()`](fn@crate::linear)); transposed views of
///   contiguous tensors are not copied
/// - `bounds [groups + 1]`, ascending from 0 to `rows`
///
/// Returns `[rows, d_out]`. A matrix that is trained gets its gradient: zeros where its group is empty.
///
/// # Panics
///
/// When the shapes do not fit together, or there is no row.
pub fn grouped_linear(x: Tensor<2>, weight: Tensor<3>, bounds: &[usize]) -> Tensor<2> {
    let ([rows, width], [groups, d_in, _]) = (x.dims(), weight.dims());
    assert!(rows > 0, "no row to multiply");
    assert_eq!(width, d_in, "matrices of another input size");
    assert_eq!(bounds.len(), groups + 1, "bounds of other groups");
    assert!(bounds.is_sorted() && bounds[0] == 0, "bounds out of order");
    assert_eq!(bounds[groups], rows, "bounds of other rows");
    #[cfg(feature = "flex")]
    if crate::has_kernels(&x) && (crate::has_kernels(&weight) || crate::linear::is_frozen(&weight))
    {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::grouped_linear(GroupedLinear {
            x: x.into_dispatch(),
            weight: weight.into_dispatch(),
            bounds: bounds.to_vec(),
        }));
    }
    composed(x, weight, bounds)
}

/// Out of Burn's operations: group by group.
fn composed(x: Tensor<2>, weight: Tensor<3>, bounds: &[usize]) -> Tensor<2> {
    let [_, d_in, d_out] = weight.dims();
    let groups = bounds.windows(2).enumerate();
    let products = groups
        .filter(|(_, bounds)| bounds[0] < bounds[1])
        .map(|(group, bounds)| {
            let weight = weight.clone().narrow(0, group, 1).reshape([d_in, d_out]);
            let x = x.clone().narrow(0, bounds[0], bounds[1] - bounds[0]);
            let weight = weight.cast(x.dtype());
            module::linear(x, weight, None)
        });
    Tensor::cat(products.collect(), 0)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution, FloatDType, Tolerance};

    use super::*;

    const BOUNDS: [&[usize]; 4] = [
        &[0, 0, 3, 40, 40],
        &[0, 1, 1, 1, 1],
        &[0, 0, 0, 64, 64],
        &[0, 20, 33, 34, 90],
    ];

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    #[test]
    fn it_is_a_loop_over_the_groups_gradients_included() {
        for bounds in BOUNDS {
            for [d_in, d_out] in [[70, 8], [8, 70], [5, 3], [1, 1]] {
                let rows = bounds[4];
                let (x, weight) = (random([rows, d_in]), random([4, d_in, d_out]));
                let probe = random([rows, d_out]);
                let way = |product: &dyn Fn(Tensor<2>, Tensor<3>) -> Tensor<2>| {
                    let x = Tensor::from_inner(x.clone()).require_grad();
                    let weight = Tensor::from_inner(weight.clone()).require_grad();
                    let y = product(x.clone(), weight.clone());
                    let grads = (y.clone() * Tensor::from_inner(probe.clone()))
                        .sum()
                        .backward();
                    let of_weight = weight.grad(&grads).unwrap().into_data();
                    [
                        y.into_data(),
                        x.grad(&grads).unwrap().into_data(),
                        of_weight,
                    ]
                };
                let got = way(&|x, weight| grouped_linear(x, weight, bounds));
                let want = way(&|x, weight| composed(x, weight, bounds));
                for (got, want) in got.into_iter().zip(want) {
                    got.assert_approx_eq::<f32>(&want, Tolerance::rel_abs(1e-4, 1e-4));
                }
            }
        }
    }

    #[test]
    fn a_frozen_weight_may_be_in_bf16_and_turned() {
        let turned = random([3, 6, 20]).swap_dims(1, 2);
        let stored = turned.clone().cast(FloatDType::BF16);
        let (x, bounds) = (random([12, 20]), [0, 4, 4, 12]);
        let want = composed(x.clone(), stored.clone(), &bounds).into_data();
        let got = grouped_linear(x.clone(), stored, &bounds).into_data();
        got.assert_approx_eq::<f32>(&want, Tolerance::rel_abs(2e-2, 5e-2));
        let want = composed(x.clone(), turned.clone(), &bounds).into_data();
        let got = grouped_linear(x, turned, &bounds).into_data();
        got.assert_approx_eq::<f32>(&want, Tolerance::rel_abs(1e-4, 1e-4));
    }

    #[test]
    #[should_panic(expected = "bounds of other rows")]
    fn bounds_are_of_the_rows() {
        grouped_linear(random([3, 2]), random([2, 2, 2]), &[0, 1, 2]);
    }

    #[test]
    #[should_panic(expected = "bounds out of order")]
    fn bounds_ascend() {
        grouped_linear(random([3, 2]), random([2, 2, 2]), &[0, 4, 3]);
    }
}
