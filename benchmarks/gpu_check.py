"""Whether a device gives the right values: fast = exact = CPU, in float32 and bfloat16.

    python -m benchmarks.gpu_check [--device cuda|cpu] [--steps 4] [--beams 4] [--candidates 64] [--tiny]

A search runs on the device, at the shapes of GPT-2 (124M) and CLIP ViT-B/32's text tower with random weights.
The values that it gave its texts (the fast path: caches, batches of branches) are compared with
``Objective.exact`` on the device (each text whole, alone), and that with ``Objective.exact`` on the CPU in
float32, by the same weights.

Prints a JSON object for each type, with the largest differences by term and whether they are within
tolerance; the exit code is 1 if one is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch

import promptfuse as pf
from benchmarks import shapes
from benchmarks.gpu import DTYPES, TOLERANCE
from promptfuse.search import AutoDAN, BeamSearch, Search, Stopping

TOLERANCES = {"fp32": dict.fromkeys(TOLERANCE, 1e-3), "bf16": TOLERANCE}
"""For each type: nats a token, and cosine."""
PHOTO = 7


def make_objective(size: shapes.Size, device: str, dtype: torch.dtype) -> pf.Objective:
    """The same objective on any device: weights and photo depend on fixed seeds."""
    lm, clip = shapes.gpt2(size, device, dtype), shapes.clip(size, device, dtype)
    term = pf.ImageSimilarity(clip, shapes.photo())
    direction = torch.randn(len(term.features), generator=torch.Generator().manual_seed(PHOTO))
    term.features = (direction / direction.norm()).to(term.features)
    return pf.Objective(pf.Fluency(lm), term)


def check(name: str, size: shapes.Size, reference: pf.Objective, args: argparse.Namespace) -> dict[str, Any]:
    """Search in one type, and compare what it gave its texts."""
    objective = make_objective(size, args.device, DTYPES[name])
    search = Search(
        objective,
        AutoDAN(candidates=args.candidates),
        BeamSearch(args.beams),
        prefix=shapes.prompt(4, size),
        stopping=Stopping(steps=args.steps, patience=args.steps),
    )
    search.run()
    found = {beam.text: beam.terms for step in search.history for beam in step.beams}
    gaps = {"fast_exact": dict.fromkeys(TOLERANCE, 0.0), "exact_cpu": dict.fromkeys(TOLERANCE, 0.0)}
    for text, fast in found.items():
        exact, cpu = objective.exact(text).terms, reference.exact(text).terms
        for term in TOLERANCE:
            for pair, gap in (
                ("fast_exact", abs(fast[term] - exact[term])),
                ("exact_cpu", abs(exact[term] - cpu[term])),
            ):
                gaps[pair][term] = max(gaps[pair][term], gap)
    allowed = TOLERANCES[name]
    return {
        "check": name,
        "device": args.device if args.device == "cpu" else torch.cuda.get_device_name(),
        "texts": len(found),
        "max_abs_difference": gaps,
        "tolerance": allowed,
        "within_tolerance": all(gap <= allowed[term] for one in gaps.values() for term, gap in one.items()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=64, help="for each beam")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that it runs")
    args = parser.parse_args()
    size = shapes.TINY if args.tiny else shapes.REAL
    reference = make_objective(size, "cpu", torch.float32)
    good = True
    for name in DTYPES:
        row = check(name, size, reference, args)
        print(json.dumps(row), flush=True)
        good = good and row["within_tolerance"]
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
