"""Runs nanoGCG on request; started by ``benchmarks.single_model_gcg`` in an environment of its own.

python nanogcg_worker.py CHECKPOINT THREADS
"""

import sys

import torch
import transformers
from gcg_worker import Clock, Counted, reference_losses, serve
from nanogcg import gcg


class Timed(gcg.GCG):
    """GCG that notes when each step begins, and forbids all special tokens, as the others do."""

    def __init__(self, model, tokenizer, config):
        super().__init__(model, tokenizer, config)
        special = torch.tensor(sorted({*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}))
        self.not_allowed_ids = torch.cat([self.not_allowed_ids, special]).unique()
        self.clock = Clock()

    def compute_token_gradient(self, optim_ids):
        """The first thing that a step does."""
        self.clock.tick()
        return super().compute_token_gradient(optim_ids)


def main():
    """Serve."""
    checkpoint, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    gcg.logger.setLevel("ERROR")
    module = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, torch_dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)

    def run(settings, target):
        config = gcg.GCGConfig(
            num_steps=settings["steps"],
            optim_str_init=settings["init"],
            search_width=settings["width"],
            topk=settings["top_k"],
            seed=settings["seed"],
            verbosity="ERROR",
        )
        counted = Counted(gcg.filter_ids)
        original, gcg.filter_ids = gcg.filter_ids, counted
        try:
            timed = Timed(module, tokenizer, config)
            result = timed.run("", target)
            timed.clock.tick()
        finally:
            gcg.filter_ids = original
        return {
            "losses": result.losses,
            "texts": result.strings,
            "scored": counted.counts,
            **timed.clock.steps(),
        }

    serve(
        ("nanogcg", "transformers", "torch"),
        lambda texts, target: reference_losses(module, tokenizer, texts, target),
        run,
    )


if __name__ == "__main__":
    main()
