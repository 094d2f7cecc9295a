//! A stream of tasks learnt from a program, without the command line.
//!
//! `cargo run --release -p moe-cl --example learn -- BASE configs/mtl5-order1.toml runs/example [key=value …]`
//! where BASE is a Hugging Face folder or a GGUF file.

use std::{error::Error, path::Path};

use burn::tensor::Device;
use moe_cl::{
    Base,
    config::Experiment,
    events::{Event, Recorder},
    training::{RunOptions, train},
};

/// Prints what matters.
struct Print;

impl Recorder for Print {
    fn record(&mut self, event: &Event) -> std::io::Result<()> {
        match event {
            Event::Step {
                step,
                loss,
                seconds,
                real_tokens,
                ..
            } => {
                println!(
                    "step {step}: loss {loss:.4}, {:.0} tokens/s",
                    *real_tokens as f64 / seconds
                );
            }
            Event::Evaluated {
                after,
                scores,
                examples_per_second,
            } => {
                println!("after {after} tasks: {scores:.3?} ({examples_per_second:.1} texts/s)");
            }
            Event::Warning { message } => println!("warning: {message}"),
            _ => {}
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, config, out, settings @ ..] = arguments.as_slice() else {
        return Err("usage: learn BASE CONFIG OUT [key=value …]".into());
    };
    let experiment = Experiment::load(Path::new(config), settings)?;
    let base = Base::load(Path::new(base), &Device::flex())?;
    let result = train(
        &experiment,
        &base,
        &RunOptions::new(out.into(), true),
        &mut Print,
    )?;
    println!("{:#?}", result.summary);
    Ok(())
}
