"""Step time against the prompt's length, the number of candidates and the number of other models.

    python -m benchmarks.scaling [--curves words candidates models] [--words 4 8 16 32 64]
        [--candidates 64 128 256 512 1024] [--models 1 2 3 4] [--steps 3] [--threads N]
        [--processor-time] [--tiny] [--plot FILE.png] [--json]

Models of the shapes of ``benchmarks.step``; the other models are text towers, each with a photo of its own.
One curve changes one thing: 2 beams x 64 candidates behind 8 words under 1 other model, if not said
otherwise. The candidates are those of one beam. Time is of whole search steps, their median; with
``--processor-time`` it is the processor's, which other programs on the machine disturb less. Every row is
printed as soon as it is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import promptfuse as pf
from benchmarks import shapes
from promptfuse._utils.memory import retain_heap
from promptfuse.models import CausalLM, ImageTextModel
from promptfuse.search import AutoDAN, BeamSearch, Search

BASE = {"words": 8, "candidates": 64, "models": 1}


def step_seconds(
    lm: CausalLM, encoders: list[ImageTextModel], words: int, candidates: int, models: int, args: Any
) -> dict[str, float]:
    """Median time of steps, and how many texts a step scored."""
    terms = [pf.ImageSimilarity(encoders[index], shapes.photo(index), 22 / models) for index in range(models)]
    objective = pf.Objective(pf.Fluency(lm), *terms)
    prompt = shapes.prompt(words, shapes.TINY if args.tiny else shapes.REAL)
    method, strategy = AutoDAN(candidates=candidates), BeamSearch(args.beams)
    clock = time.process_time if args.processor_time else time.perf_counter
    taken, scored = [], 0
    for _ in range(args.steps):
        # From the prompt each time, so that its length stays what it is said to be.
        search = Search(objective, method, strategy, prefix=prompt, steps=10**6)
        search.step()
        started = clock()
        scored = search.step().proposed
        taken.append(clock() - started)
    return {"seconds": statistics.median(taken), "scored": scored}


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the curves, and print each point."""
    torch.set_num_threads(args.threads)
    retain_heap()  # As the command line does.
    size = shapes.TINY if args.tiny else shapes.REAL
    lm = shapes.gpt2(size)
    most = max([BASE["models"], *(args.models if "models" in args.curves else [])])
    encoders = [shapes.clip(size, seed=index) for index in range(most)]
    step_seconds(lm, encoders, **BASE, args=args)  # Loads and plans what is loaded and planned once.
    rows = []
    for curve in args.curves:
        for value in getattr(args, curve):
            setting = BASE | {curve: value}
            row = {"curve": curve, **setting, "beams": args.beams, "threads": args.threads}
            row |= step_seconds(lm, encoders, **setting, args=args)
            rows.append(row)
            shown = f"{curve} {value}: {row['seconds']:.3f} s for {row['scored']} candidates"
            print(json.dumps(row) if args.json else shown, flush=True)
    return rows


def plot(rows: list[dict[str, Any]], curves: list[str], path: Path) -> None:
    """Draw the curves side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(curves), 3.4), layout="constrained")
    titles = {"words": "words of the prompt", "candidates": "candidates a beam", "models": "other models"}
    for axis, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        points = [(row[curve], row["seconds"]) for row in rows if row["curve"] == curve]
        axis.plot(*zip(*points, strict=True), "o-", color="#3b6ea5")
        axis.set_xlabel(titles[curve])
        axis.set_ylabel("seconds a step")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.suptitle("AutoDAN step, shapes of GPT-2 (124M) and CLIP ViT-B/32's text tower")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--curves", nargs="+", choices=list(BASE), default=list(BASE))
    parser.add_argument("--words", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--candidates", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--models", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--beams", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="the median of so many is taken")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that it runs")
    parser.add_argument("--processor-time", action="store_true", help="measure the processor's time")
    parser.add_argument("--plot", type=Path, help="where to draw the curves")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    args = parser.parse_args()
    rows = measure(args)
    if args.plot is not None:
        plot(rows, args.curves, args.plot)


if __name__ == "__main__":
    main()
