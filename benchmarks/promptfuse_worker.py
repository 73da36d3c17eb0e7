"""Runs this package's GCG on request; started by ``benchmarks.single_model_gcg``.

python promptfuse_worker.py MODEL THREADS START
"""

import sys

import torch
from gcg_worker import Clock, serve

import promptfuse as pf
from promptfuse.search import GCG, Constraints, Greedy, Search, Stopping


def main():
    """Serve."""
    name, threads, start = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(threads)
    lm = pf.load_model(name, start=start)

    def run(settings, target):
        search = Search(
            pf.Objective(pf.TargetContinuation(lm, target)),
            GCG(init=settings["init"], top_k=settings["top_k"], batch=settings["width"]),
            Greedy(),
            # Rules for good prose, which the others do not have.
            constraints=Constraints(no_repeat_ngram=0, no_repeated_word=False),
            stopping=Stopping(steps=settings["steps"], patience=settings["steps"]),
            seed=settings["seed"],
        )
        clock, steps = Clock(), []
        lm.clear_text_cache()
        clock.tick()
        for step in search:
            clock.tick()
            steps.append(step)
        return {
            "losses": [step.beams[0].value for step in steps],
            "texts": [step.beams[0].text for step in steps],
            "scored": [step.proposed for step in steps],
            **clock.steps(),
        }

    def losses(texts, target):
        term = pf.TargetContinuation(lm, target)
        return [term.exact(text) for text in texts]

    serve(("promptfuse", "transformers", "torch"), losses, run)


if __name__ == "__main__":
    main()
