"""Runs TROPT's GCG on request; started by ``benchmarks.single_model_gcg`` in an environment of its own.

python tropt_worker.py CHECKPOINT THREADS
"""

import logging
import sys

import torch
import transformers
from gcg_worker import Clock, Counted, reference_losses, serve
from tropt.common import OPTIMIZED_TRIGGER_PLACEHOLDER, Targets
from tropt.loss import PrefillCELoss
from tropt.model.huggingface.lm import LMHFModel
from tropt.optimizer import gcg_optimizer
from tropt.optimizer.utils.token_constraints import TokenConstraints


class Timed(gcg_optimizer.GCGOptimizer):
    """GCG that notes when each step ends: it logs the initial text, then the text of each step."""

    def log(self, *, loss, trigger_str, **rest):
        """Note a step."""
        self.clock.tick()
        self.logged.append((loss, trigger_str))
        super().log(loss=loss, trigger_str=trigger_str, **rest)


def main():
    """Serve."""
    checkpoint, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    model = LMHFModel(model_name=checkpoint, device="cpu", dtype="float32")
    plain = transformers.AutoTokenizer.from_pretrained(checkpoint)

    def run(settings, target):
        torch.manual_seed(settings["seed"])
        optimizer = Timed(
            model=model,
            loss=PrefillCELoss(),
            seed=settings["seed"],
            num_steps=settings["steps"],
            n_candidates=settings["width"],
            sample_topk=settings["top_k"],
            token_constraints=TokenConstraints(
                disallow_custom_token_ids=sorted(plain.get_added_vocab().values())
            ),
        )
        optimizer.clock, optimizer.logged = Clock(), []
        original = gcg_optimizer.retokenize_filtering
        counted = gcg_optimizer.retokenize_filtering = Counted(original)
        try:
            optimizer.optimize_trigger(
                templates=[OPTIMIZED_TRIGGER_PLACEHOLDER],
                targets=Targets(target_response_strs=[target]),
                initial_trigger=settings["init"],
            )
        finally:
            gcg_optimizer.retokenize_filtering = original
        return {
            "losses": [loss for loss, _ in optimizer.logged[1:]],
            "texts": [text for _, text in optimizer.logged[1:]],
            "scored": counted.counts,
            **optimizer.clock.steps(),
        }

    serve(
        ("tropt", "transformers", "torch"),
        lambda texts, target: reference_losses(model._model, plain, texts, target),
        run,
    )


if __name__ == "__main__":
    main()
