//! A classification head, for programs that know no heads.

use std::{collections::HashMap, io, path::Path};

use safetensors::tensor::{Dtype, TensorView};

use crate::{config::Pooling, head::Head};

/// Writes `head.safetensors`, its `weight [classes, d_model]`, and `head.py`, the lines that apply it, into `dir`.
///
/// # Errors
/// When the disk refuses.
pub(super) fn write(dir: &Path, head: &Head, labels: &[String]) -> io::Result<()> {
    let weight = head.weight.val().transpose();
    let shape = weight.dims().to_vec();
    let values = weight.into_data();
    let bytes: Vec<u8> = values.iter::<f32>().flat_map(f32::to_le_bytes).collect();
    let view = TensorView::new(Dtype::F32, shape, &bytes).expect("four bytes per number");
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let file = safetensors::serialize([("weight", view)], Some(about));
    let file = file.map_err(io::Error::other)?;
    moe_core::atomic::write_file(&dir.join("head.safetensors"), &file)?;
    let labels = serde_json::to_string(labels).map_err(io::Error::other)?;
    let pooled = match head.pooling() {
        Pooling::Mean => "(hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)",
        Pooling::Last => "hidden[range(len(hidden)), mask.sum(1) - 1]",
    };
    let lines = format!(
        "import safetensors.torch\n\nLABELS = {labels}\n\n\n\
         def logits(model, inputs, head=\"head.safetensors\"):\n    \
         \"\"\"Of the labels. `inputs` is what a tokenizer makes of bare texts, padded on the right: input_ids and attention_mask.\"\"\"\n    \
         hidden, mask = model(**inputs, output_hidden_states=True).hidden_states[-1], inputs[\"attention_mask\"]\n    \
         pooled = {pooled}\n    \
         return pooled @ safetensors.torch.load_file(head)[\"weight\"].T\n"
    );
    moe_core::atomic::write_file(&dir.join("head.py"), lines.as_bytes())
}
