//! Gradients against finite differences: for the tests of this room and others.

use candle_core::{Tensor, Var};
use evenset_core::Seed;

/// How many elements of each input are checked, spread evenly.
const CHECKED: usize = 40;

/// Checks the gradient of `f` with respect to every input against central differences.
///
/// The result of `f` is weighted with fixed random numbers and summed (in `f64`) to a scalar. Elements, up to 40 of each
/// input, are moved by a hundredth either way; the two slopes may differ by `tolerance` times the larger of one and the
/// slope. Inputs are `f32`; layouts (transposed, narrowed) are the business of `f`.
///
/// # Errors
/// Names the input and element whose gradient is missing or wrong.
pub fn check_gradients(
    name: &str,
    inputs: &[Tensor],
    f: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
    tolerance: f64,
) -> candle_core::Result<()> {
    const STEP: f32 = 1e-2;
    let vars = inputs.iter().map(|x| Var::from_tensor(&x.contiguous()?.copy()?)).collect::<Result<Vec<_>, _>>()?;
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let output = f(&tracked)?;
    let mask = Tensor::from_vec(Seed(1).normal(output.elem_count()), output.shape(), output.device())?;
    let grads = output.mul(&mask)?.sum_all()?.backward()?;

    let mask: Vec<f32> = mask.flatten_all()?.to_vec1()?;
    let loss = |inputs: &[Tensor]| -> candle_core::Result<f64> {
        let values: Vec<f32> = f(inputs)?.flatten_all()?.to_vec1()?;
        Ok(values.iter().zip(&mask).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum())
    };
    let mut moved: Vec<Tensor> = tracked.iter().map(Tensor::detach).collect();
    for (i, var) in vars.iter().enumerate() {
        let Some(gradient) = grads.get(var) else {
            candle_core::bail!("{name}: no gradient reaches input {i}");
        };
        if gradient.shape() != var.shape() {
            candle_core::bail!("{name}: input {i} is {:?}, its gradient {:?}", var.shape(), gradient.shape());
        }
        let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
        let original: Vec<f32> = var.flatten_all()?.to_vec1()?;
        for element in (0..original.len()).step_by(original.len().div_ceil(CHECKED).max(1)) {
            let mut at = |offset: f32| {
                let mut values = original.clone();
                values[element] += offset;
                moved[i] = Tensor::from_vec(values, var.shape(), var.device())?;
                loss(&moved)
            };
            let width = f64::from(original[element] + STEP) - f64::from(original[element] - STEP);
            let slope = (at(STEP)? - at(-STEP)?) / width;
            let found = f64::from(gradient[element]);
            let error = (slope - found).abs();
            if error.is_nan() || error > tolerance * slope.abs().max(1.0) {
                candle_core::bail!("{name}: input {i}, element {element}: gradient {found}, finite difference {slope}");
            }
        }
        moved[i] = var.as_detached_tensor();
    }
    Ok(())
}
