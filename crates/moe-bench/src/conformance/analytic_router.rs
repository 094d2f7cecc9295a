//! Recursive ridge regression task by task, against the joint solution, and the fixed random map in front of it.

use anyhow::bail;
use moe_cl::recognizer::{Matrix, RandomExpansion, RecursiveRidge};

use super::case::Case;
use super::check::{Check, Verdict};
use super::tensors::Tensors;

/// Runs a case: blocks `task0.X`, `task0.Y`, … one after another, then the test texts, then the same behind a random map.
///
/// # Errors
/// When the fixture cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let tensors = case.tensors()?;
    if !tensors.has("task0.X") {
        return Ok(Verdict::Skip("unknown kind of analytic_router case".into()));
    }
    let (ridge, tolerance) = (case.setting("ridge")?, case.tolerance("f64")?);
    let mut check = Check::default();
    let mut close = |name: &str, got: &Matrix| -> anyhow::Result<()> {
        let want = matrix(&tensors, name)?;
        let shape = |matrix: &Matrix| [matrix.nrows(), matrix.ncols()];
        let values = |matrix: &Matrix| matrix.iter().copied().collect::<Vec<f64>>();
        check.exact(&format!("{name} shape"), &shape(got), &shape(&want));
        check.close_f64(name, &values(got), &values(&want), tolerance, |_| true);
        Ok(())
    };

    let blocks = blocks(&tensors)?;
    let mut sequential = RecursiveRidge::new(blocks[0].0.ncols(), ridge);
    for (task, (x, y)) in blocks.iter().enumerate() {
        sequential.learn(x, y)?;
        close(&format!("task{task}.R_after"), sequential.inverse())?;
        close(&format!("task{task}.W_after"), sequential.weights())?;
        close(&format!("task{task}.W_joint"), sequential.weights())?;
    }
    let scores = sequential.predict(&matrix(&tensors, "test.X")?);
    close("test.scores", &scores)?;
    if tensors.has("expand.W_random") {
        let map = RandomExpansion::from_weights(matrix(&tensors, "expand.W_random")?);
        let mut expanded = RecursiveRidge::new(tensors.dims::<2>("expand.W_random")?[1], ridge);
        let mut features = Vec::new();
        for (x, y) in &blocks {
            let block = map.forward(x);
            features.extend(&block);
            expanded.learn(&block, y)?;
        }
        let columns = expanded.weights().nrows();
        let features = Matrix::from_shape_vec((features.len() / columns, columns), features)?;
        close("expand.relu_features", &features)?;
        close("expand.W_joint", expanded.weights())?;
    }
    let best: Vec<i64> = scores
        .rows()
        .into_iter()
        .map(|row| argmax(&row.to_vec()))
        .collect();
    check.exact("test.pred", &best, &tensors.i64("test.pred")?);
    check.note_unused(&tensors);
    Ok(check.verdict())
}

/// `(X, Y)` of every task, in their order.
fn blocks(tensors: &Tensors) -> anyhow::Result<Vec<(Matrix, Matrix)>> {
    (0..)
        .take_while(|task| tensors.has(&format!("task{task}.X")))
        .map(|task| {
            let x = matrix(tensors, &format!("task{task}.X"))?;
            let y = matrix(tensors, &format!("task{task}.Y"))?;
            if x.nrows() != y.nrows() {
                bail!(
                    "task{task} has {} rows of X and {} of Y",
                    x.nrows(),
                    y.nrows()
                );
            }
            Ok((x, y))
        })
        .collect()
}

fn matrix(tensors: &Tensors, name: &str) -> anyhow::Result<Matrix> {
    let [rows, columns] = tensors.dims(name)?;
    Ok(Matrix::from_shape_vec((rows, columns), tensors.f64(name)?)?)
}

/// The first of the largest, as numpy's.
fn argmax(scores: &[f64]) -> i64 {
    let larger = |best: usize, index: usize| {
        if scores[index] > scores[best] {
            index
        } else {
            best
        }
    };
    (0..scores.len())
        .reduce(larger)
        .map_or(-1, |best| best as i64)
}
