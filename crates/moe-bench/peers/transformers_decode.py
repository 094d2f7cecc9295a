"""transformers on the same base in f32: writes tokens behind prompts."""

import os
import sys

from decoding import arguments, prompts, serve

# Only what is called has to be there (install.py).
sys.setdlopenflags(os.RTLD_LAZY)

import torch
from transformers import AutoModelForCausalLM

chosen = arguments(__doc__)
torch.set_num_threads(chosen.threads)
model = AutoModelForCausalLM.from_pretrained(chosen.base, dtype=torch.float32).eval()
ids = torch.tensor(prompts(chosen))


def write():
    with torch.inference_mode():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=None, pad_token_id=0,
            min_new_tokens=chosen.new, max_new_tokens=chosen.new,
        )


serve(f"transformers on torch {torch.__version__}, {chosen.threads} threads", write)
