//! A residual block in training as one operation, channels last on the CPU.
//!
//! candle's backward pass fills a tensor with zeros for every input of every operation and adds our gradient to it. Here
//! that happens once for a block instead of once for each of its layers, and of all that lies between them only the
//! first convolution's result is kept for the backward pass: the normalised maps are computed again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::conv::{Conv2d, convolved, geometry};
use super::norm::GroupNorm;
use super::{Maps, Order, Padding};
use crate::grad_mode::used;
use crate::kernels::pack::{Packed, Plain};
use crate::kernels::rows::column_sums;
use crate::kernels::slab::Added;
use crate::ops::host::{Values, gradient, output, values};

/// The weight and bias of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

/// The layers of a block.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    pub(crate) norm1: Layer,
    /// `[outputs, inputs, 3, 3]`.
    pub(crate) conv1: Layer,
    pub(crate) norm2: Layer,
    /// `[outputs, outputs, 3, 3]`.
    pub(crate) conv2: Layer,
    /// `[outputs, inputs, 1, 1]`; without it, there are as many outputs as inputs.
    pub(crate) shortcut: Option<Layer>,
    /// Of both normalisations.
    pub(crate) groups: usize,
    pub(crate) eps: f64,
}

impl Layers {
    fn all(&self) -> impl Iterator<Item = &Layer> {
        [&self.norm1, &self.conv1, &self.norm2, &self.conv2].into_iter().chain(&self.shortcut)
    }

    /// Weight and bias of each layer.
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.all().flat_map(|layer| [&layer.weight, &layer.bias])
    }
}

/// `h + x` or `h + shortcut(x)`, with `h = conv2(silu(norm2(conv1(silu(norm1(x))) + shift)))` and `shift`
/// `[batch, outputs]`.
///
/// `None` where the layers have to be called one by one: for maps in another order, and for weights without gradients.
///
/// # Errors
/// Shapes that do not agree.
pub(crate) fn resnet_block(x: &Maps, layers: &Layers, shift: Option<&Tensor>) -> Result<Option<Maps>> {
    let tensors = || layers.tensors().chain([&x.values]).chain(shift);
    if x.order != Order::ChannelsLast || !crate::ops::fast(&tensors().collect::<Vec<_>>()) {
        return Ok(None);
    }
    if x.values.elem_count() == 0 || !layers.tensors().all(|tensor| used(tensor).track_op() && tensor.is_contiguous()) {
        return Ok(None);
    }
    let delivery = Arc::new(Delivery::default());
    let block = Block::new(x, layers, delivery.clone())?;
    let device = x.values.device();
    let outputs = block.conv1.geometry.outputs;
    let shift = match shift {
        Some(shift) if shift.dims() == [block.batch, outputs] => shift.contiguous()?,
        Some(shift) => bail!("a shift of shape {:?} for {} images of {outputs} channels", shift.shape(), block.batch),
        None => Tensor::zeros((block.batch, outputs), x.values.dtype(), device)?,
    };
    let mut parameters = Tensor::zeros(1, x.values.dtype(), device)?;
    for (index, tensor) in layers.tensors().enumerate() {
        parameters = tensor.apply_op2(&parameters, Deliver { index, delivery: delivery.clone() })?;
    }
    Ok(Some(Maps::last(x.values.contiguous()?.apply_op3(&shift, &parameters, block)?)))
}

/// The gradients of a block's parameters, on their way from its backward pass to the parameters.
///
/// An operation of candle has three inputs at most. The parameters join in a chain of [`Deliver`] operations, the end of
/// which is an input of the block: candle visits them after the block, in the thread that runs the backward pass.
#[derive(Default)]
struct Delivery(Mutex<HashMap<ThreadId, Vec<Vec<f32>>>>);

impl Delivery {
    fn lock(&self) -> MutexGuard<'_, HashMap<ThreadId, Vec<Vec<f32>>>> {
        // Nothing in a critical section panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the order of [`Layers::tensors`].
    fn put(&self, gradients: Vec<Vec<f32>>) {
        self.lock().insert(thread::current().id(), gradients);
    }

    fn take(&self, index: usize) -> Option<Vec<f32>> {
        let mut all = self.lock();
        let gradients = all.get_mut(&thread::current().id())?;
        let taken = std::mem::take(gradients.get_mut(index)?);
        if gradients.iter().all(Vec::is_empty) {
            all.remove(&thread::current().id());
        }
        Some(taken)
    }
}

/// Gives a parameter its gradient. The value is that of the other input: one number, which nobody reads.
struct Deliver {
    index: usize,
    delivery: Arc<Delivery>,
}

impl CustomOp2 for Deliver {
    fn name(&self) -> &'static str {
        "evenset parameter of a residual block"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        output(vec![0.0], 1)
    }

    fn bwd(
        &self,
        parameter: &Tensor,
        others: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(found) = self.delivery.take(self.index) else {
            bail!("the backward pass of a residual block left no gradient for its parameter {}", self.index);
        };
        Ok((gradient(found, parameter)?, others.track_op().then(|| grad.clone())))
    }
}

/// The block over `batch` images.
struct Block {
    batch: usize,
    layers: Layers,
    norm: GroupNorm,
    conv1: Conv2d,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    delivery: Arc<Delivery>,
    /// The result of the first convolution.
    between: OnceLock<Vec<f32>>,
}

/// The values of a layer, locked for reading.
struct LayerValues<'a> {
    weight: Values<'a>,
    bias: Values<'a>,
}

impl<'a> LayerValues<'a> {
    fn of(layer: &'a Layer) -> Result<Self> {
        Ok(Self { weight: Values::of(&layer.weight)?, bias: Values::of(&layer.bias)? })
    }

    fn get(&self) -> Result<(&[f32], &[f32])> {
        Ok((self.weight.get()?, self.bias.get()?))
    }
}

impl Block {
    fn new(x: &Maps, layers: &Layers, delivery: Arc<Delivery>) -> Result<Self> {
        let (batch, inputs, height, width) = x.dims();
        let conv = |inputs: usize, weight: &Tensor, padding: usize| {
            let (geometry, sizes) = geometry((inputs, height, width), weight.dims(), 1, Padding::all(padding))?;
            if geometry.out != (height, width) {
                bail!("a residual block cannot change {width}x{height} maps with a weight {:?}", weight.shape());
            }
            Ok(Conv2d { geometry, sizes })
        };
        let conv1 = conv(inputs, &layers.conv1.weight, 1)?;
        let outputs = conv1.geometry.outputs;
        let conv2 = conv(outputs, &layers.conv2.weight, 1)?;
        let shortcut = layers.shortcut.as_ref().map(|layer| conv(inputs, &layer.weight, 0)).transpose()?;
        let to = shortcut.as_ref().map_or(inputs, |conv| conv.geometry.outputs);
        if conv2.geometry.outputs != outputs || to != outputs {
            bail!("a residual block adds {} channels to {to}", conv2.geometry.outputs);
        }
        for (norm, channels) in [(&layers.norm1, inputs), (&layers.norm2, outputs)] {
            let fits = norm.weight.dims() == [channels] && norm.bias.dims() == [channels];
            if !fits || layers.groups == 0 || !channels.is_multiple_of(layers.groups) {
                bail!("a group normalisation {norm:?} in {} groups cannot take {channels} channels", layers.groups);
            }
        }
        if layers.all().skip(1).filter(|layer| layer.weight.rank() == 4).any(|layer| layer.bias.dims() != [outputs]) {
            bail!("the biases of a residual block of {outputs} channels have other shapes");
        }
        let norm = GroupNorm { groups: layers.groups, eps: layers.eps, silu: true };
        Ok(Self { batch, layers: layers.clone(), norm, conv1, conv2, shortcut, delivery, between: OnceLock::new() })
    }

    /// The normalised maps, behind the activation.
    fn normalised(&self, x: &[f32], layer: &Layer) -> Result<Vec<f32>> {
        let layer = LayerValues::of(layer)?;
        let (weight, bias) = layer.get()?;
        Ok(self.norm.forward(self.batch, x, weight, bias))
    }
}

/// `conv(x) + bias`, with the layer's bias where `added` has none.
fn convolution(conv: &Conv2d, x: &[f32], layer: &Layer, added: Added<'_>) -> Result<Vec<f32>> {
    let layer = LayerValues::of(layer)?;
    let (weight, bias) = layer.get()?;
    let weight = Packed::new(conv.sizes, Plain::F32(weight));
    Ok(convolved(&conv.geometry, x, &weight, Added { bias: added.bias.or(Some(bias)), ..added }))
}

/// The sum of bias and shift, for each image.
fn shifted(bias: &[f32], shift: &[f32]) -> Vec<f32> {
    shift.chunks_exact(bias.len()).flat_map(|shift| shift.iter().zip(bias).map(|(a, b)| a + b)).collect()
}

fn add_to(sum: &mut [f32], values: &[f32]) {
    const TASK: usize = 1 << 14;
    sum.par_chunks_mut(TASK).zip(values.par_chunks(TASK)).for_each(|(sum, values)| {
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    });
}

impl CustomOp3 for Block {
    fn name(&self) -> &'static str {
        "evenset residual block"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, shift, layers) = (values(x, x_layout)?, values(shift, shift_layout)?, &self.layers);
        let bias = shifted(Values::of(&layers.conv1.bias)?.get()?, shift);
        let added = Added { bias: Some(&bias), bias_of_image: true, residual: None };
        let between = convolution(&self.conv1, &self.normalised(x, &layers.norm1)?, &layers.conv1, added)?;
        let normalised = self.normalised(&between, &layers.norm2)?;
        // Set once: nothing calls an operation's forward pass twice.
        let _ = self.between.set(between);
        let shortcut = match (&self.shortcut, &layers.shortcut) {
            (Some(conv), Some(layer)) => Some(convolution(conv, x, layer, Added::default())?),
            _ => None,
        };
        // Added behind the convolution, as without gradients: the bytes are the same.
        let mut out = convolution(&self.conv2, &normalised, &layers.conv2, Added::default())?;
        add_to(&mut out, shortcut.as_deref().unwrap_or(x));
        let (batch, height, width, _) = x_layout.shape().dims4()?;
        output(out, (batch, height, width, self.conv2.geometry.outputs))
    }

    fn bwd(
        &self,
        x: &Tensor,
        shift: &Tensor,
        parameters: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (grad, x_values, layers) = (Values::of(&grad)?, Values::of(x)?, &self.layers);
        let (grad, x_values) = (grad.get()?, x_values.get()?);
        let Some(between) = self.between.get() else {
            bail!("the backward pass of a residual block came before its forward pass");
        };
        let (batch, outputs) = (self.batch, self.conv1.geometry.outputs);
        let bias2 = column_sums(&column_sums(grad, outputs, batch), outputs, 1);
        let weight2 = self.conv2.weight_gradient(grad, &self.normalised(between, &layers.norm2)?);
        let norm2 = {
            let (conv, norm) = (Values::of(&layers.conv2.weight)?, LayerValues::of(&layers.norm2)?);
            let back = self.conv2.input_gradient(grad, conv.get()?, None);
            let (weight, bias) = norm.get()?;
            self.norm.backward(batch, between, &back, weight, bias)
        };
        let shifts = column_sums(&norm2.x, outputs, batch);
        let bias1 = column_sums(&shifts, outputs, 1);
        let weight1 = self.conv1.weight_gradient(&norm2.x, &self.normalised(x_values, &layers.norm1)?);
        let norm1 = {
            let (conv, norm) = (Values::of(&layers.conv1.weight)?, LayerValues::of(&layers.norm1)?);
            let back = self.conv1.input_gradient(&norm2.x, conv.get()?, None);
            drop(norm2.x);
            let (weight, bias) = norm.get()?;
            self.norm.backward(batch, x_values, &back, weight, bias)
        };
        let mut x_gradient = norm1.x;
        let mut gradients =
            vec![norm1.weight, norm1.bias, weight1, bias1, norm2.weight, norm2.bias, weight2, bias2.clone()];
        match (&self.shortcut, &layers.shortcut) {
            (Some(conv), Some(layer)) => {
                gradients.extend([conv.weight_gradient(grad, x_values), bias2]);
                let weight = Values::of(&layer.weight)?;
                x_gradient = conv.input_gradient(grad, weight.get()?, Some(&x_gradient));
            }
            _ => add_to(&mut x_gradient, grad),
        }
        self.delivery.put(gradients);
        let x_gradient = if x.track_op() { gradient(x_gradient, x)? } else { None };
        let shifts = if shift.track_op() { gradient(shifts, shift)? } else { None };
        Ok((x_gradient, shifts, Some(parameters.zeros_like()?)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use candle_core::{DType, Device, Var};
    use evenset_core::Seed;

    use super::super::{ConvExtras, conv2d, group_norm};
    use super::*;
    use crate::gradcheck::check_gradients;
    use crate::no_grad;
    use crate::ops::with_candle;
    use crate::param::Param;

    const EPS: f64 = 1e-5;

    #[derive(Clone, Copy, Debug)]
    struct Case {
        batch: usize,
        inputs: usize,
        outputs: usize,
        size: (usize, usize),
        groups: usize,
        shifted: bool,
    }

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        let shapes = [
            (16, 16, (8, 8), 4),
            (32, 48, (9, 7), 8),
            (20, 20, (5, 11), 5),
            (70, 34, (6, 13), 2),
            (3, 6, (4, 5), 3),
            (2, 2, (3, 1), 1),
            (64, 64, (16, 16), 32),
        ];
        for (i, (inputs, outputs, size, groups)) in shapes.into_iter().enumerate() {
            for batch in 1..=3 {
                cases.push(Case { batch, inputs, outputs, size, groups, shifted: (i + batch) % 3 > 0 });
            }
        }
        cases
    }

    fn random(seed: u64, shape: &[usize]) -> Tensor {
        Tensor::from_vec(Seed(seed).normal(shape.iter().product()), shape, &Device::Cpu).unwrap()
    }

    fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
        assert_eq!(found.dims(), expected.dims());
        let norm = |x: &Tensor| {
            x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
        };
        norm(&found.sub(expected).unwrap()) / norm(expected).max(1e-3)
    }

    fn bytes(x: &Tensor) -> Vec<u32> {
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
    }

    impl Case {
        /// Images, shift, and the parameters in the order of [`Layers::tensors`].
        fn tensors(&self) -> Vec<Tensor> {
            let Self { batch, inputs, outputs, size: (height, width), .. } = *self;
            let mut shapes = vec![vec![batch, inputs, height, width], vec![batch, outputs]];
            shapes.extend([vec![inputs], vec![inputs], vec![outputs, inputs, 3, 3], vec![outputs]]);
            shapes.extend([vec![outputs], vec![outputs], vec![outputs, outputs, 3, 3], vec![outputs]]);
            if inputs != outputs {
                shapes.extend([vec![outputs, inputs, 1, 1], vec![outputs]]);
            }
            let tensor = |(seed, shape): (usize, &Vec<usize>)| {
                // Weights as small as keep the maps near one.
                let inputs: usize = shape.iter().skip(1).product();
                let scale = if shape.len() == 4 && seed > 0 { 1.0 / (inputs as f64).sqrt() } else { 1.0 };
                (random(seed as u64, shape) * scale).unwrap()
            };
            shapes.iter().enumerate().map(tensor).collect()
        }

        fn layers(&self, tensors: &[Tensor]) -> Layers {
            let layer = |i: usize| Layer { weight: tensors[i].clone(), bias: tensors[i + 1].clone() };
            Layers {
                norm1: layer(2),
                conv1: layer(4),
                norm2: layer(6),
                conv2: layer(8),
                shortcut: (tensors.len() > 10).then(|| layer(10)),
                groups: self.groups,
                eps: EPS,
            }
        }

        fn shift<'a>(&self, tensors: &'a [Tensor]) -> Option<&'a Tensor> {
            self.shifted.then_some(&tensors[1])
        }

        fn at_once(&self, tensors: &[Tensor]) -> Result<Tensor> {
            let x = Maps::from_nchw(&tensors[0])?;
            resnet_block(&x, &self.layers(tensors), self.shift(tensors))?.expect("all weights are variables").to_nchw()
        }

        fn one_by_one(&self, tensors: &[Tensor]) -> Result<Tensor> {
            let (x, layers) = (Maps::from_nchw(&tensors[0])?, self.layers(tensors));
            let norm = |x: &Maps, layer: &Layer| group_norm(x, self.groups, &layer.weight, &layer.bias, EPS, true);
            let conv = |x: &Maps, layer: &Layer, padding, shift, residual| {
                let extras = ConvExtras { bias: Some(&layer.bias), shift, residual };
                conv2d(x, &Param::new(layer.weight.clone()), 1, Padding::all(padding), extras)
            };
            let h = conv(&norm(&x, &layers.norm1)?, &layers.conv1, 1, self.shift(tensors), None)?;
            let shortcut = layers.shortcut.as_ref().map(|layer| conv(&x, layer, 0, None, None)).transpose()?;
            let residual = Some(shortcut.as_ref().unwrap_or(&x));
            conv(&norm(&h, &layers.norm2)?, &layers.conv2, 1, None, residual)?.to_nchw()
        }

        /// The result and the gradients of everything.
        fn run(&self, f: impl Fn(&Self, &[Tensor]) -> Result<Tensor>) -> Vec<Tensor> {
            let vars: Vec<_> = self.tensors().iter().map(|x| Var::from_tensor(x).unwrap()).collect();
            let tensors: Vec<_> = vars.iter().map(|var| var.as_tensor().clone()).collect();
            let y = f(self, &tensors).unwrap();
            let grads = y.mul(&random(99, y.dims())).unwrap().sum_all().unwrap().backward().unwrap();
            let gradient = |(i, var): (usize, &Var)| match grads.get(var) {
                Some(gradient) => gradient.clone(),
                None => {
                    assert!(i == 1 && !self.shifted, "{self:?}: no gradient for {i}");
                    var.zeros_like().unwrap()
                }
            };
            let gradients: Vec<_> = vars.iter().enumerate().map(gradient).collect();
            [y.detach()].into_iter().chain(gradients).collect()
        }
    }

    #[test]
    fn a_block_at_once_agrees_with_its_layers_one_by_one() {
        for case in cases() {
            let found = case.run(Case::at_once);
            let expected = case.run(Case::one_by_one);
            let candles = with_candle(|| case.run(Case::one_by_one));
            assert_eq!(found.len(), expected.len());
            assert_eq!(bytes(&found[0]), bytes(&expected[0]), "{case:?}");
            for (i, found) in found.iter().enumerate() {
                let (error, from_candle) = (relative_error(found, &expected[i]), relative_error(found, &candles[i]));
                assert!(error < 1e-5, "{case:?}, tensor {i}: {error}");
                assert!(from_candle < 3e-5, "{case:?}, tensor {i}: {from_candle} from candle's");
            }
        }
    }

    #[test]
    fn a_block_at_once_has_the_gradients_of_finite_differences() {
        for (inputs, outputs) in [(4, 4), (4, 6)] {
            let case = Case { batch: 2, inputs, outputs, size: (3, 4), groups: 2, shifted: true };
            let f = |tensors: &[Tensor]| {
                let variable = |x: &Tensor| match x.track_op() {
                    true => Ok(x.clone()),
                    false => Var::from_tensor(x).map(|var| var.as_tensor().clone()),
                };
                case.at_once(&tensors.iter().map(variable).collect::<Result<Vec<_>>>()?)
            };
            check_gradients(&format!("{case:?}"), &case.tensors(), f, 2e-2).unwrap();
        }
    }

    #[test]
    fn bytes_depend_neither_on_the_batch_nor_on_the_threads() {
        for case in cases() {
            let run = || case.run(Case::at_once).iter().map(bytes).collect::<Vec<_>>();
            let together = with_threads(1, run);
            assert_eq!(together, with_threads(2, run), "{case:?}");
            for image in 0..case.batch {
                let mut tensors = case.tensors();
                for tensor in &mut tensors[..2] {
                    *tensor = tensor.narrow(0, image, 1).unwrap().contiguous().unwrap();
                }
                let tensors: Vec<_> =
                    tensors.iter().map(|x| Var::from_tensor(x).unwrap().as_tensor().clone()).collect();
                let alone = bytes(&case.at_once(&tensors).unwrap());
                let size = alone.len();
                assert_eq!(alone, together[0][image * size..][..size], "{case:?}, image {image}");
            }
        }
    }

    #[test]
    fn a_graph_has_the_same_gradients_every_time() {
        let case = Case { batch: 2, inputs: 6, outputs: 4, size: (5, 3), groups: 2, shifted: true };
        let vars: Vec<_> = case.tensors().iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let tensors: Vec<_> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let loss = case.at_once(&tensors).unwrap().sqr().unwrap().sum_all().unwrap();
        let gradients = || {
            let grads = loss.backward().unwrap();
            vars.iter().map(|var| bytes(grads.get(var).unwrap())).collect::<Vec<_>>()
        };
        let first = gradients();
        assert_eq!(first, gradients());
        thread::scope(|scope| {
            for thread in [scope.spawn(gradients), scope.spawn(gradients)] {
                assert_eq!(first, thread.join().unwrap());
            }
        });
    }

    #[test]
    fn weights_that_stay_leave_a_block_to_its_layers() {
        let case = Case { batch: 1, inputs: 4, outputs: 4, size: (3, 3), groups: 2, shifted: false };
        let vars: Vec<_> = case.tensors().iter().map(|x| Var::from_tensor(x).unwrap().as_tensor().clone()).collect();
        let layers = case.layers(&vars);
        let x = Maps::from_nchw(&vars[0]).unwrap();
        let computed = |x: &Maps, layers: &Layers| resnet_block(x, layers, None).unwrap().is_some();
        assert!(computed(&x, &layers));
        assert!(!no_grad(|| computed(&x, &layers)));
        assert!(!with_candle(|| computed(&Maps::from_nchw(&vars[0]).unwrap(), &layers)));
        let frozen = Layers { conv2: Layer { weight: layers.conv2.weight.detach(), ..layers.conv2.clone() }, ..layers };
        assert!(!computed(&x, &frozen));
    }

    #[test]
    fn shapes_that_do_not_agree_are_errors() {
        let case = Case { batch: 2, inputs: 4, outputs: 6, size: (3, 3), groups: 2, shifted: true };
        for i in 1..12 {
            let mut tensors = case.tensors();
            tensors[i] = Tensor::cat(&[&tensors[i], &tensors[i]], 0).unwrap();
            let tensors: Vec<_> = tensors.iter().map(|x| Var::from_tensor(x).unwrap().as_tensor().clone()).collect();
            assert!(case.at_once(&tensors).is_err(), "tensor {i}");
        }
    }
}
