//! Weights, optimiser and average: their arithmetic, their files, and files that are wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use candle_core::{Device, Tensor};
use evenset_core::Seed;
use evenset_nn::layers::Linear;
use evenset_nn::{AdamW, AdamWConfig, Ema, Error, Init, Scope, Weights};

const CPU: &Device = &Device::Cpu;

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn all(weights: &Weights) -> Vec<(String, Vec<f32>)> {
    weights.named_tensors().into_iter().map(|(name, tensor)| (name, values(&tensor))).collect()
}

/// The weights of a convolution.
fn convolution(scope: &Scope) {
    let init = Init::KaimingUniform { fan_in: 18 };
    scope.param("weight", &[3, 2, 3, 3], init).unwrap();
    scope.get("bias", &[3], init).unwrap();
}

/// A network of a convolution and a linear layer.
fn network(seed: u64) -> Weights {
    let weights = Weights::new(Seed(seed), CPU);
    convolution(&weights.scope("net").sub("conv"));
    Linear::new(&weights.scope("net").sub("linear").sub(0), 4, 5).unwrap();
    weights
}

#[test]
fn initial_values_depend_on_seed_and_name_alone() {
    let weights = network(1);
    let other = Weights::new(Seed(1), CPU);
    Linear::new(&other.scope("net.linear.0"), 4, 5).unwrap();
    convolution(&other.scope("net.conv"));
    assert_eq!(all(&weights), all(&other));
    assert_ne!(all(&weights), all(&network(2)));
    let names: Vec<_> = weights.vars().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["net.conv.bias", "net.conv.weight", "net.linear.0.bias", "net.linear.0.weight"]);
    assert_eq!(weights.count(), 3 + 54 + 5 + 20);
}

#[test]
fn initial_values_have_the_distribution_asked_for() {
    let scope = Weights::new(Seed(1), CPU).scope("");
    let draw = |name: &str, init| values(&scope.get(name, &[100, 100], init).unwrap());
    assert!(draw("zeros", Init::Zeros).iter().all(|x| *x == 0.0));
    assert!(draw("ones", Init::Ones).iter().all(|x| *x == 1.0));
    assert!(draw("const", Init::Const(0.5)).iter().all(|x| *x == 0.5));
    let deviation = |x: &[f32]| (x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32).sqrt();
    assert!((deviation(&draw("normal", Init::Normal { std: 2.0 })) - 2.0).abs() < 0.06);
    let uniform = draw("uniform", Init::Uniform { bound: 3.0 });
    assert!(uniform.iter().all(|x| x.abs() <= 3.0) && (deviation(&uniform) - 3f32.sqrt()).abs() < 0.05);
    let kaiming = draw("kaiming", Init::KaimingUniform { fan_in: 16 });
    assert!(kaiming.iter().all(|x| x.abs() <= 0.25) && kaiming.iter().any(|x| x.abs() > 0.24));
}

#[test]
fn a_name_has_one_shape_and_one_variable() {
    let weights = network(1);
    let scope = weights.scope("net.conv");
    let again = scope.get("bias", &[3], Init::Zeros).unwrap();
    assert!(again.is_variable() && values(&again) == all(&weights)[0].1);
    assert!(matches!(scope.get("bias", &[4], Init::Zeros), Err(Error::Shape { .. })));
}

#[test]
fn weights_come_back_from_a_file_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, again) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    network(1).save(&path).unwrap();
    let weights = network(2);
    weights.load(&path).unwrap();
    assert_eq!(all(&weights), all(&network(1)));
    weights.save(&again).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file stays behind");
}

#[test]
fn a_wrong_file_is_refused_by_name_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let weights = network(1);
    let refuse = |words: &[&str]| {
        let error = weights.load(&path).unwrap_err().to_string();
        for word in words.iter().chain(&["weights.safetensors"]) {
            assert!(error.contains(word), "`{error}` does not say {word}");
        }
        assert_eq!(all(&weights), all(&network(1)));
    };
    refuse(&["No such file"]);

    network(2).save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in [0, 4, 8, 100, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        refuse(&["not a usable safetensors file"]);
    }
    let mut claims = whole;
    claims[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, &claims).unwrap();
    refuse(&["header"]);

    let other = Weights::new(Seed(1), CPU);
    convolution(&other.scope("net.conv"));
    other.save(&path).unwrap();
    refuse(&["net.linear.0.bias", "missing"]);
    Linear::new(&other.scope("net.linear.0"), 4, 6).unwrap();
    other.save(&path).unwrap();
    refuse(&["net.linear.0.bias", "[6]", "[5]"]);

    let larger = network(2);
    Linear::new(&larger.scope("extra"), 1, 1).unwrap();
    larger.save(&path).unwrap();
    refuse(&["extra.bias", "not part"]);
}

/// One variable `[1, -2]` whose loss is `sum(c * x)`: its gradient is `c`.
fn line() -> (Weights, Tensor) {
    let weights = Weights::new(Seed(1), CPU);
    let x = weights.scope("").get("x", &[2], Init::Zeros).unwrap();
    weights.vars()[0].1.set(&Tensor::new(&[1f32, -2.0], CPU).unwrap()).unwrap();
    (weights, x)
}

fn step(optimiser: &mut AdamW, x: &Tensor, c: [f32; 2], lr: f64, clip: Option<f64>) -> evenset_nn::Result<f64> {
    let loss = x.mul(&Tensor::new(&c, CPU).unwrap()).unwrap().sum_all().unwrap();
    optimiser.step(&loss.backward().unwrap(), lr, clip)
}

#[test]
fn adamw_makes_the_steps_of_its_paper() {
    let (weights, x) = line();
    let config = AdamWConfig { lr: 0.1, beta1: 0.8, beta2: 0.9, eps: 1e-3, weight_decay: 0.5 };
    let mut optimiser = AdamW::new(weights.vars(), config);
    // By the formulas, in f64.
    let (mut expected, mut m, mut v) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
    for (t, (c, lr)) in [([3.0f32, -4.0], 0.1), ([1.0, 2.0], 0.05), ([0.0, -1.0], 0.2)].into_iter().enumerate() {
        let norm = step(&mut optimiser, &x, c, lr, None).unwrap();
        assert!((norm - f64::from(c[0].hypot(c[1]))).abs() < 1e-6);
        for i in 0..2 {
            let g = f64::from(c[i]);
            m[i] = 0.8 * m[i] + 0.2 * g;
            v[i] = 0.9 * v[i] + 0.1 * g * g;
            let (m_hat, v_hat) = (m[i] / (1.0 - 0.8f64.powi(t as i32 + 1)), v[i] / (1.0 - 0.9f64.powi(t as i32 + 1)));
            expected[i] = expected[i] * (1.0 - lr * 0.5) - lr * m_hat / (v_hat.sqrt() + 1e-3);
        }
        for (found, expected) in values(&x).iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "step {t}: {found} {expected}");
        }
    }
    assert_eq!(optimiser.steps(), 3);
}

#[test]
fn a_long_gradient_is_clipped_to_the_norm() {
    let config = AdamWConfig { eps: 1.0, weight_decay: 0.0, ..AdamWConfig::default() };
    let run = |c: [f32; 2], clip: Option<f64>| {
        let (weights, x) = line();
        let norm = step(&mut AdamW::new(weights.vars(), config), &x, c, 0.1, clip).unwrap();
        (norm, values(&x))
    };
    let (norm, clipped) = run([30.0, -40.0], Some(0.5));
    assert!((norm - 50.0).abs() < 1e-4, "the norm before clipping is returned: {norm}");
    let (_, short) = run([0.3, -0.4], None);
    assert!(clipped.iter().zip(&short).all(|(a, b)| (a - b).abs() < 1e-6), "{clipped:?} {short:?}");
    assert_eq!(run([0.3, -0.4], Some(0.6)).1, short, "a short gradient is left alone");
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    for bad in [f32::NAN, f32::INFINITY] {
        let (weights, x) = line();
        let mut optimiser = AdamW::new(weights.vars(), AdamWConfig::default());
        let error = step(&mut optimiser, &x, [bad, 1.0], 0.1, Some(1.0)).unwrap_err();
        assert!(matches!(error, Error::NonFiniteGradient { .. }));
        assert_eq!((values(&x), optimiser.steps()), (vec![1.0, -2.0], 0));
        step(&mut optimiser, &x, [1.0, 1.0], 0.1, Some(1.0)).unwrap();
        assert!(values(&x).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn an_optimiser_goes_on_from_its_file_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (state, saved) = (folder.path().join("optimiser.safetensors"), folder.path().join("weights.safetensors"));
    let (weights, x) = line();
    let mut optimiser = AdamW::new(weights.vars(), AdamWConfig::default());
    step(&mut optimiser, &x, [1.0, 2.0], 0.1, None).unwrap();
    optimiser.save(&state).unwrap();
    weights.save(&saved).unwrap();
    step(&mut optimiser, &x, [-1.0, 2.0], 0.1, None).unwrap();

    let (other, y) = line();
    let mut resumed = AdamW::new(other.vars(), AdamWConfig::default());
    other.load(&saved).unwrap();
    resumed.load(&state).unwrap();
    step(&mut resumed, &y, [-1.0, 2.0], 0.1, None).unwrap();
    assert_eq!((values(&x), 2), (values(&y), resumed.steps()));

    let mut wrong = AdamW::new(network(1).vars(), AdamWConfig::default());
    assert!(matches!(wrong.load(&state), Err(Error::Missing { .. })));
}

#[test]
fn the_average_warms_up_and_follows() {
    let (weights, x) = line();
    let set = |values: [f32; 2]| weights.vars()[0].1.set(&Tensor::new(&values, CPU).unwrap()).unwrap();
    let mut ema = Ema::new(&weights, 0.25).unwrap();
    // The decays are 2/11, 3/12 = 0.25 and then the one asked for.
    let mut expected = [1.0f32, -2.0];
    for (new, decay) in [([2.0, 0.0], 2.0 / 11.0), ([3.0, 1.0], 0.25), ([5.0, 5.0], 0.25)] {
        set(new);
        ema.update().unwrap();
        expected = [0, 1].map(|i| decay * expected[i] + (1.0 - decay) * new[i]);
    }
    let close = |found: &[f32]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);

    let other = line();
    ema.copy_to(&other.0).unwrap();
    assert!(close(&values(&other.1)) && values(&x) == [5.0, 5.0]);
    ema.swap().unwrap();
    assert!(close(&values(&x)));
    ema.swap().unwrap();
    assert_eq!(values(&x), [5.0, 5.0]);

    assert!(matches!(ema.copy_to(&network(1)), Err(Error::Config(_))));
}

#[test]
fn an_average_goes_on_from_its_file_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ema.safetensors");
    let weights = network(1);
    let mut ema = Ema::new(&weights, 0.9).unwrap();
    let saved = folder.path().join("weights.safetensors");
    network(2).save(&saved).unwrap();
    weights.load(&saved).unwrap();
    ema.update().unwrap();
    ema.save(&path).unwrap();
    ema.update().unwrap();

    let mut resumed = Ema::new(&weights, 0.9).unwrap();
    resumed.load(&path).unwrap();
    resumed.update().unwrap();
    let (first, second) = (network(3), network(4));
    ema.copy_to(&first).unwrap();
    resumed.copy_to(&second).unwrap();
    assert_eq!(all(&first), all(&second));
    assert!(Ema::new(&line().0, 0.9).unwrap().load(&path).is_err());
}
