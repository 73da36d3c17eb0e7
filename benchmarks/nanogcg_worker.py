"""Runs nanoGCG on request; started by ``benchmarks.single_model_gcg`` in an environment of its own.

    python nanogcg_worker.py CHECKPOINT THREADS

Reads a JSON object a line and answers each with one. ``{"texts": [...], "target": ...}`` asks for the loss of
texts, ``{"settings": {...}, "target": ...}`` for a run. It must not import promptfuse, which needs a newer
transformers than nanoGCG can have.
"""

import json
import sys
import time
from importlib import metadata
from itertools import pairwise

import torch
import transformers
from nanogcg import gcg


class Timed(gcg.GCG):
    """GCG that notes when each step begins."""

    def run(self, messages, target):
        """See ``GCG.run``."""
        self.began = []
        result = super().run(messages, target)
        self.began.append((time.perf_counter(), time.process_time()))
        return result

    def compute_token_gradient(self, optim_ids):
        """The first thing that a step does."""
        self.began.append((time.perf_counter(), time.process_time()))
        return super().compute_token_gradient(optim_ids)


class Counted:
    """A function of candidates that notes how many of them it gives back."""

    def __init__(self, function):
        self.function = function
        self.counts = []

    def __call__(self, *arguments):
        """Call the function."""
        found = self.function(*arguments)
        self.counts.append(len(found))
        return found


@torch.no_grad()
def losses(module, tokenizer, texts, target):
    """NLL per token of the target behind each text, by itself, with the model's own cross-entropy."""
    found = []
    target_ids = tokenizer([target], add_special_tokens=False)["input_ids"][0]
    for text in texts:
        ids = tokenizer([text])["input_ids"][0] + target_ids
        labels = [-100] * (len(ids) - len(target_ids)) + target_ids
        found.append(module(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item())
    return found


def run(module, tokenizer, settings, target):
    """One run of GCG behind an empty message."""
    counted = Counted(gcg.filter_ids)
    original, gcg.filter_ids = gcg.filter_ids, counted
    try:
        timed = Timed(module, tokenizer, gcg.GCGConfig(**settings))
        result = timed.run("", target)
    finally:
        gcg.filter_ids = original
    return {
        "losses": result.losses,
        "strings": result.strings,
        "step_seconds": [stop - start for (start, _), (stop, _) in pairwise(timed.began)],
        "step_processor_seconds": [stop - start for (_, start), (_, stop) in pairwise(timed.began)],
        "scored": counted.counts or [settings["search_width"]] * len(result.losses),
    }


def main():
    """Answer requests until there are no more."""
    checkpoint, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    gcg.logger.setLevel("ERROR")
    module = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, torch_dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    versions = {name: metadata.version(name) for name in ("nanogcg", "transformers", "torch")}
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "texts" in request:
            answer = losses(module, tokenizer, request["texts"], request["target"])
        else:
            answer = run(module, tokenizer, request["settings"], request["target"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
