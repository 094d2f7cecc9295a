"""llama.cpp on the same GGUF file: writes tokens behind prompts."""

import threading

from decoding import arguments, prompts, serve

import xllamacpp

chosen = arguments(__doc__)
params = xllamacpp.CommonParams()
params.model.path = chosen.base
params.n_parallel = chosen.sequences
params.n_ctx = chosen.sequences * (chosen.prompt + chosen.new + 8)
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = chosen.threads
server = xllamacpp.Server(params)


def write_one(prompt):
    answer = server.handle_completions({
        "prompt": prompt, "n_predict": chosen.new, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False,
    })
    if answer.get("tokens_predicted", chosen.new) != chosen.new:
        raise SystemExit(f"it wrote {answer['tokens_predicted']} tokens of {chosen.new}")


def write():
    writers = [threading.Thread(target=write_one, args=(prompt,)) for prompt in prompts(chosen)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


serve(f"xllamacpp {getattr(xllamacpp, '__version__', '')}, {chosen.threads} threads", write)
