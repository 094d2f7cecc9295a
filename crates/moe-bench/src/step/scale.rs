//! How the time of a step grows with the number of tasks, the length of the texts, the batch, the rank and the layers.

use std::io::Write;

use super::{Options, Setting, times};

/// What is varied, and the values it takes.
const SWEEPS: [(&str, &[usize]); 5] = [
    ("tasks", &[1, 2, 4, 8, 16, 32, 64]),
    ("len", &[64, 128, 256, 512, 1024, 2048]),
    ("batch", &[1, 2, 4, 8, 16]),
    ("rank", &[4, 8, 16, 32]),
    ("layers", &[6, 12, 24, 30]),
];

/// Times every value of every sweep, the rest being as `options` say, and prints a line for each as it comes.
///
/// The sweep over lengths keeps the number of tokens where it can: fewer rows for longer texts.
///
/// # Errors
/// When the method is none, or a line cannot be printed.
pub fn run(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "{:<8} {:>6} {:>10} {:>12} {:>14}",
        "varied", "value", "median s", "tokens/s", "µs per token"
    )?;
    for (name, values) in SWEEPS {
        for &value in values {
            let mut setting = options.setting();
            vary(&mut setting, name, value);
            let median = times(&setting, options.mode, options.rounds)?.median();
            let tokens = (setting.batch * setting.len) as f64;
            writeln!(
                out,
                "{name:<8} {value:>6} {median:>10.3} {:>12.0} {:>14.1}",
                tokens / median,
                1e6 * median / tokens
            )?;
            out.flush()?;
        }
    }
    Ok(())
}

fn vary(setting: &mut Setting, name: &str, value: usize) {
    let tokens = setting.batch * setting.len;
    match name {
        "tasks" => setting.tasks = value,
        "len" => (setting.len, setting.batch) = (value, (tokens / value).max(1)),
        "batch" => setting.batch = value,
        "rank" => setting.rank = value,
        _ => setting.layers = value,
    }
}
