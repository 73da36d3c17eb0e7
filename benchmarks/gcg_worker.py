"""What the workers of ``benchmarks.single_model_gcg`` share: requests, and what a run is made of.

A worker reads a JSON object a line and answers each with one. ``{"texts": [...], "target": ...}`` asks for
the losses of texts, ``{"settings": {...}, "target": ...}`` for a run. Workers of other packages must not
import promptfuse, which needs a newer transformers than they can have.
"""

import json
import resource
import sys
import time
from importlib import metadata
from itertools import pairwise


class Clock:
    """Notes the wall and the processor time at the borders of steps."""

    def __init__(self):
        self.ticks = []

    def tick(self):
        """Note the time."""
        self.ticks.append((time.perf_counter(), time.process_time()))

    def steps(self):
        """Seconds of each step, by the clock and of the processor."""
        pairs = list(pairwise(self.ticks))
        return {
            "step_seconds": [after[0] - before[0] for before, after in pairs],
            "step_processor_seconds": [after[1] - before[1] for before, after in pairs],
        }


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


def peak_mebibytes():
    """The most memory that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def serve(packages, losses, run):
    """Answer requests until there are no more.

    Args:
        packages: whose versions are told first.
        losses: of texts and a target.
        run: one run from settings and a target: its losses, texts, times and numbers of texts scored by step.
    """
    print(json.dumps({name: metadata.version(name) for name in packages}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "texts" in request:
            answer = losses(request["texts"], request["target"])
        else:
            answer = {**run(request["settings"], request["target"]), "peak_mebibytes": peak_mebibytes()}
        print(json.dumps(answer), flush=True)


def reference_losses(module, tokenizer, texts, target):
    """NLL per token of the target after each text in a chat, by the module's own cross-entropy."""
    import torch

    found = []
    target_ids = tokenizer([target], add_special_tokens=False)["input_ids"][0]
    for text in texts:
        message = [{"role": "user", "content": text}]
        whole = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        ids = tokenizer([whole], add_special_tokens=False)["input_ids"][0] + target_ids
        labels = [-100] * (len(ids) - len(target_ids)) + target_ids
        with torch.no_grad():
            found.append(module(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item())
    return found
