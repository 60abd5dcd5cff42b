//! How fast attention of tokens runs on this machine, at the shapes of Stable Diffusion 1.5 and of small pixel models.
//!
//! `cargo run --release -p evenset-nn --example attention_speed`; with `forward` behind `--`, only that pass.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use candle_core::{Device, Result, Tensor, Var};
use evenset_core::Seed;
use evenset_nn::maps::attention;

/// (name, batch, queries, keys, heads, width of a head)
const SHAPES: [(&str, usize, usize, usize, usize, usize); 9] = [
    ("UNet 64x64", 2, 4096, 4096, 8, 40),
    ("UNet 32x32", 2, 1024, 1024, 8, 80),
    ("UNet 16x16", 2, 256, 256, 8, 160),
    ("UNet 64x64 to text", 2, 4096, 77, 8, 40),
    ("UNet 32x32 to text", 2, 1024, 77, 8, 80),
    ("UNet 16x16 to text", 2, 256, 77, 8, 160),
    ("autoencoder 64x64", 1, 4096, 4096, 1, 512),
    ("pixels 16x16", 64, 256, 256, 4, 32),
    ("pixels 8x8", 64, 64, 64, 4, 8),
];

/// The shortest time of some calls, in seconds: others use the machine too.
fn shortest(calls: usize, mut f: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    let mut shortest = f64::INFINITY;
    for _ in 0..calls {
        let start = Instant::now();
        f()?;
        shortest = shortest.min(start.elapsed().as_secs_f64());
    }
    Ok(shortest)
}

fn main() -> Result<()> {
    let forward_only = std::env::args().any(|argument| argument == "forward");
    for (name, batch, queries, keys, heads, width) in SHAPES {
        let random = |seed, tokens| {
            let values = Seed(seed).normal(batch * tokens * heads * width);
            Var::from_tensor(&Tensor::from_vec(values, (batch, tokens, heads * width), &Device::Cpu)?)
        };
        let vars = [random(1, queries)?, random(2, keys)?, random(3, keys)?];
        let [q, k, v] = vars.each_ref().map(|var| var.as_detached_tensor());
        let flop = (4 * batch * heads * queries * keys * width) as f64 * 1e-9;
        let calls = (20.0 / flop) as usize;
        let forward = shortest(calls.clamp(5, 100), || attention(&q, &k, &v, heads))?;
        print!("{name:20} {batch:2} x {queries:4} x {keys:4}, {heads} x {width:3}:  ");
        print!("forward {:8.2} ms {:6.1} GFLOP/s", forward * 1e3, flop / forward);
        if !forward_only {
            let both = shortest(calls.clamp(2, 30), || {
                let [q, k, v] = &vars;
                let y = attention(q, k, v, heads)?;
                y.sum_all()?.backward()?;
                Ok(y)
            })?;
            print!("   and backward {:8.2} ms {:6.1} GFLOP/s", both * 1e3, 3.5 * flop / both);
        }
        println!();
    }
    Ok(())
}
