"""transformers on the same base in f32: writes tokens behind prompts on request (the conversation is that of program.py)."""

import argparse
import json
import os
import sys
import time

sys.setdlopenflags(os.RTLD_LAZY)
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import torch
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--base", required=True, help="Hugging Face folder")
for name in ("threads", "sequences", "prompt", "new"):
    parser.add_argument(f"--{name}", type=int, required=True)
chosen = parser.parse_args()
torch.set_num_threads(chosen.threads)
model = AutoModelForCausalLM.from_pretrained(chosen.base, dtype=torch.float32).eval()
ids = torch.tensor([
    [100 + (7 * place + 13 * sequence) % 1000 for place in range(chosen.prompt)] for sequence in range(chosen.sequences)
])


def step():
    start = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=None, pad_token_id=0,
            min_new_tokens=chosen.new, max_new_tokens=chosen.new,
        )
    return time.perf_counter() - start


def answer(**fields):
    ANSWERS.write(json.dumps(fields) + "\n")


step()
answer(ready=f"transformers on torch {torch.__version__}, {chosen.threads} threads")
for request in sys.stdin:
    if request.strip() == "step":
        answer(seconds=step())
    else:
        answer(error=f"unknown request {request.strip()!r}")
