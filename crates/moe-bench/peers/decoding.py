"""What the programs that write behind prompts share: arguments, the prompts, and the conversation of program.py without torch."""

import argparse
import json
import os
import sys
import time

# Answers go where standard output went; whatever libraries print goes to standard error.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base", required=True, help="GGUF file, or Hugging Face folder")
    for name in ("threads", "sequences", "prompt", "new"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


def prompts(chosen):
    """The same invented tokens as ours."""
    return [
        [100 + (7 * place + 13 * sequence) % 1000 for place in range(chosen.prompt)] for sequence in range(chosen.sequences)
    ]


def answer(**fields):
    ANSWERS.write(json.dumps(fields) + "\n")


def serve(what, write):
    """Answers `step` with the seconds that `write` takes."""
    write()
    # Some libraries say a line for every sequence.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    answer(ready=what)
    for request in sys.stdin:
        if request.strip() == "step":
            start = time.perf_counter()
            write()
            answer(seconds=time.perf_counter() - start)
        else:
            answer(error=f"unknown request {request.strip()!r}")
