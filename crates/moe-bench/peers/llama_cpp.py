"""llama.cpp on the same GGUF file: writes tokens behind prompts on request (the conversation is that of program.py)."""

import argparse
import json
import os
import sys
import threading
import time

ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import xllamacpp

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--base", required=True, help="GGUF file")
for name in ("threads", "sequences", "prompt", "new"):
    parser.add_argument(f"--{name}", type=int, required=True)
chosen = parser.parse_args()

params = xllamacpp.CommonParams()
params.model.path = chosen.base
params.n_parallel = chosen.sequences
params.n_ctx = chosen.sequences * (chosen.prompt + chosen.new + 8)
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = chosen.threads
server = xllamacpp.Server(params)


def write(sequence):
    # The same invented tokens as ours.
    prompt = [100 + (7 * place + 13 * sequence) % 1000 for place in range(chosen.prompt)]
    answer = server.handle_completions({
        "prompt": prompt, "n_predict": chosen.new, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False,
    })
    if answer.get("tokens_predicted", chosen.new) != chosen.new:
        raise SystemExit(f"it wrote {answer['tokens_predicted']} tokens of {chosen.new}")


def step():
    start = time.perf_counter()
    writers = [threading.Thread(target=write, args=(sequence,)) for sequence in range(chosen.sequences)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return time.perf_counter() - start


def answer(**fields):
    ANSWERS.write(json.dumps(fields) + "\n")


step()
# A line for every slot that it takes and leaves.
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
answer(ready=f"xllamacpp {getattr(xllamacpp, '__version__', '')}, {chosen.threads} threads")
for request in sys.stdin:
    if request.strip() == "step":
        answer(seconds=step())
    else:
        answer(error=f"unknown request {request.strip()!r}")
