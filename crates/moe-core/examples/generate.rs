//! Asks a local chat model one question:
//! `cargo run --release -p moe-core --features flex --example generate -- MODEL "QUESTION"`,
//! where MODEL is a Hugging Face folder or a `.gguf` file.

use std::path::Path;

use moe_core::chat::Message;
use moe_core::checkpoint::Checkpoint;
use moe_core::device::DeviceChoice;
use moe_core::generate::{Sampling, generate};
use moe_core::model::Decoder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(question)) = (arguments.next(), arguments.next()) else {
        return Err("usage: generate MODEL QUESTION".into());
    };
    let checkpoint = Checkpoint::open(Path::new(&path))?;
    let model = Decoder::load(&checkpoint, &DeviceChoice::Cpu.open()?)?;
    let tokenizer = checkpoint.tokenizer()?;

    let chat = checkpoint.chat(&tokenizer)?;
    let ends = checkpoint.answer_ends(&tokenizer, chat.as_ref())?;
    let prompt = match &chat {
        Some(chat) => chat.encode(&[Message::new("user", question)], true, &tokenizer)?,
        None => tokenizer.encode_text(&question, false)?,
    };
    let prompts = [prompt];
    let answers = generate(&model, &prompts, 64, &Sampling::greedy(), ends.all())?;
    println!("{}", tokenizer.decode(&answers[0], true)?);
    Ok(())
}
