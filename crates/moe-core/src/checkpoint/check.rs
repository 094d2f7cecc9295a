//! The tensors of a checkpoint against the settings next to them.

use std::collections::HashSet;

use super::Checkpoint;
use crate::config::Parameter;
use crate::error::{Error, Result};

/// Names listed in one message; a wrong config can miss thousands.
const LISTED: usize = 8;

/// Missing, wrongly shaped and left-over tensors, and those that are not floats.
///
/// # Errors
/// [`Error::File`] that lists the names and the settings they disagree with.
pub(super) fn check(checkpoint: &Checkpoint) -> Result<()> {
    let mut complaints = Complaints::default();
    let mut wanted = HashSet::new();
    let stored = checkpoint.names().count();
    for parameter in checkpoint.config().parameters() {
        compare(checkpoint, &parameter, &mut complaints);
        wanted.insert(parameter.name);
        // A config that asks for far more than there is: enough is known.
        if complaints.missing.len() > stored + LISTED {
            break;
        }
    }
    // A head that is stored although it is tied is the embedding once more.
    let left_over = checkpoint
        .names()
        .filter(|name| !wanted.contains(*name) && !is_harmless(name) && *name != "lm_head.weight");
    complaints.left_over.extend(left_over.map(str::to_owned));
    complaints.finish(checkpoint)
}

/// Tensors that older writers stored although nothing reads them.
pub(super) fn is_harmless(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

#[derive(Default)]
struct Complaints {
    missing: Vec<String>,
    misshaped: Vec<String>,
    not_float: Vec<String>,
    left_over: Vec<String>,
}

fn compare(checkpoint: &Checkpoint, parameter: &Parameter, complaints: &mut Complaints) {
    let Parameter { name, shape, keys } = parameter;
    let (Some(found), Some(dtype)) = (checkpoint.shape(name), checkpoint.dtype(name)) else {
        complaints.missing.push(name.clone());
        return;
    };
    if found != shape.as_slice() {
        let keys = keys.join(", ");
        let message = format!("{name} is {found:?}, expected {shape:?} from {keys}");
        complaints.misshaped.push(message);
    }
    if is_integer(&dtype) {
        complaints.not_float.push(format!("{name} is {dtype}"));
    }
}

fn is_integer(dtype: &str) -> bool {
    let digits = dtype.strip_prefix('I').or(dtype.strip_prefix('U'));
    dtype == "BOOL" || digits.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Complaints {
    fn finish(self, checkpoint: &Checkpoint) -> Result<()> {
        let mut parts = Vec::new();
        let mut push = |what: &str, names: &[String]| {
            if !names.is_empty() {
                parts.push(format!("{what}: {}", list(names)));
            }
        };
        push("tensors missing", &self.missing);
        push("tensors of another shape", &self.misshaped);
        push("tensors that are not floats", &self.not_float);
        push("tensors left over", &self.left_over);
        if parts.is_empty() {
            return Ok(());
        }
        let hint = self.hint(checkpoint);
        let message = format!(
            "the weights do not fit the model's settings; {}{hint}",
            parts.join("; ")
        );
        Err(Error::file(checkpoint.path(), message))
    }

    /// The setting that is most likely wrong.
    fn hint(&self, checkpoint: &Checkpoint) -> String {
        let config = checkpoint.config();
        let only = |names: &[String], name: &str| names.len() == 1 && names[0] == name;
        if only(&self.missing, "lm_head.weight") {
            return "; does the model tie its head (tie_word_embeddings = true)?".into();
        }
        let in_layers = |names: &[String]| {
            !names.is_empty() && names.iter().all(|name| name.starts_with("model.layers."))
        };
        if in_layers(&self.missing) || in_layers(&self.left_over) {
            return format!("; is num_hidden_layers = {} right?", config.num_layers);
        }
        String::new()
    }
}

fn list(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(LISTED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
