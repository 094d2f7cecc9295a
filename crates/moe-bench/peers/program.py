"""What the programs here share: the conversation with the benchmark, arguments, the batch, the rate of products.

A program sets itself up, runs its step until it is warm, and answers requests, one a line, with one JSON object a line:
at first by itself {"ready": "what it is"}, to `step` {"seconds": of one step}, to `rate` {"gflops": of the frozen products}.
It ends when its input does.
"""

import argparse
import json
import os
import sys
import time

# Only what is called has to be there (install.py).
sys.setdlopenflags(os.RTLD_LAZY)
# Answers go where standard output went; whatever libraries print goes to standard error.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import torch

WARM_UP = 2


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base", required=True, help="Hugging Face folder of a plain Llama model")
    parser.add_argument("--mode", choices=("train", "eval"), default="train")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32", help="of the frozen base and of the products")
    for name, default in (("batch", 8), ("len", 96), ("rank", 8), ("classes", 4), ("tasks", 2), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("alpha", 16.0), ("dropout", 0.05), ("weight", 0.1), ("rate", 1e-4)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--dump", metavar="FILE", help="write weights, batch, losses and gradients of one step, and end")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[chosen.dtype]
    return chosen


def batch(chosen, vocabulary, padded=False):
    """-> ids, mask [batch, len], labels [batch]; rows of random ids, all `len` long or padded on the right."""
    draw = torch.Generator().manual_seed(1)
    shape = chosen.batch, chosen.len
    ids = torch.randint(1, vocabulary, shape, generator=draw)
    labels = torch.randint(0, chosen.classes, shape[:1], generator=draw)
    if not padded:
        return ids, torch.ones(shape, dtype=torch.long), labels
    lengths = torch.randint(max(1, chosen.len // 3), chosen.len + 1, (chosen.batch, 1), generator=draw)
    mask = (torch.arange(chosen.len) < lengths).long()
    return ids * mask, mask, labels


def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def gflops(products, rounds=9):
    """Rate over `products`, pairs of a function and its floating-point operations, each at its best of some rounds."""
    with torch.no_grad():
        best = [min(seconds(product) for _ in range(rounds)) for product, _ in products]
    return 1e-9 * sum(count for _, count in products) / sum(best)


def answer(**fields):
    ANSWERS.write(json.dumps(fields) + "\n")


def serve(step, products):
    for _ in range(WARM_UP):
        step()
    answer(ready=f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    for request in sys.stdin:
        if request.strip() == "step":
            answer(seconds=seconds(step))
        elif request.strip() == "rate":
            answer(gflops=gflops(products))
        else:
            answer(error=f"unknown request {request.strip()!r}")
