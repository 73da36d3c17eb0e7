"""Captions per second at the shapes of the ``paper`` preset, in bfloat16 and float32.

    python -m benchmarks.gpu [--device cuda|cpu] [--photos 64] [--together 32] [--steps 16] [--beams 4]
        [--candidates 256] [--layers 24] [--narrow | --tiny] [--dtypes bf16 fp32] [--threads N] [--json]

GPT-2 medium and the text tower of CLIP ViT-B/32 with random weights; photos are random unit vectors. Every
search takes all its steps. ``--together`` searches share their forward passes. Without a GPU it runs small on
the CPU and says what is missing. ``--narrow`` keeps the vocabularies and makes the models next to nothing: it
shows what the host takes for tokens and rankings, which no device can make faster.

For each type: captions per second; the products of one caption, counted as they are run; their share of the
rate that the device reaches on large square products of this type, in the same run. Then the texts found with
bfloat16 are scored exactly with both types, and the largest differences are shown by term.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import promptfuse as pf
from benchmarks import shapes
from promptfuse.models import CausalLM, ImageTextModel
from promptfuse.models.fast.products import fast_linear
from promptfuse.search import AutoDAN, BeamSearch, Result, Search, Stopping
from promptfuse.search.scheduler import BatchScheduler

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
PREFIX = "An image of"
TOLERANCE = {"fluency": 0.05, "image": 0.02}
"""What bfloat16, with its 8 bits, may change: nats a token, and cosine."""
MEDIUM = replace(shapes.REAL, lm=(1024, 24, 16))
"""GPT-2 medium and the text tower of CLIP ViT-B/32."""
PAPER = {"photos": 64, "together": 32, "steps": 16, "candidates": 256, "layers": 24}
SMALL = {"photos": 2, "together": 2, "steps": 3, "candidates": 16, "layers": 2}


def make_searches(lm: CausalLM, clip: ImageTextModel, args: argparse.Namespace) -> list[Search]:
    """A search for each photo."""
    found = []
    for number in range(args.photos):
        term = pf.ImageSimilarity(clip, shapes.photo())
        direction = torch.randn(len(term.features), generator=torch.Generator().manual_seed(number))
        term.features = (direction / direction.norm()).to(term.features)
        search = Search(
            pf.Objective(pf.Fluency(lm), term),
            AutoDAN(candidates=args.candidates),
            BeamSearch(args.beams),
            prefix=PREFIX,
            stopping=Stopping(steps=args.steps, patience=args.steps),
        )
        found.append(search)
    return found


def run_all(searches: Sequence[Search], together: int) -> list[Result]:
    """The results of searches, so many side by side."""
    results: dict[int, Result] = {}

    def worker(number: int) -> Callable[[], None]:
        def run() -> None:
            results[number] = searches[number].run()

        return run

    for start in range(0, len(searches), together):
        part = range(start, min(start + together, len(searches)))
        if len(part) == 1:
            worker(start)()
        else:
            BatchScheduler().run([worker(number) for number in part])
    return [results[number] for number in range(len(searches))]


def wait(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


@torch.no_grad()
def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large square product, the fastest of ten."""
    size = 1024 if device == "cpu" else 8192
    module = torch.nn.Linear(size, size, bias=False, device=device, dtype=dtype)
    inputs = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(12):
        wait(device)
        started = time.perf_counter()
        fast_linear(module, inputs)
        wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def counter() -> FlopCounterMode:
    """What counts the products of a block of code, those of oneDNN included."""

    def product(inputs: Any, weight: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
        del args, kwargs, out_shape
        return int(2 * torch.Size(inputs).numel() * weight[0])

    return FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: product})


def caption_flops(search: Search) -> float:
    """Products of one caption that is searched for alone."""
    with counter() as counted:
        search.run()
    return float(counted.get_total_flops())


def measure(name: str, args: argparse.Namespace) -> tuple[dict[str, Any], pf.Objective, list[str]]:
    """Time one type; with the objective of the first photo and the texts that were found."""
    dtype = DTYPES[name]
    size = replace(MEDIUM, lm=(1024, args.layers, 16))
    if args.narrow:
        size = replace(shapes.REAL, lm=shapes.TINY.lm, clip=shapes.TINY.clip)
    elif args.tiny:
        size = shapes.TINY
    lm, clip = shapes.gpt2(size, args.device, dtype), shapes.clip(size, args.device, dtype)
    flops = caption_flops(make_searches(lm, clip, args)[0])  # It warms up, too.
    searches = make_searches(lm, clip, args)
    if args.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    wait(args.device)
    started = time.perf_counter()
    results = run_all(searches, args.together)
    wait(args.device)
    seconds = time.perf_counter() - started
    rate = matrix_rate(args.device, dtype)
    row = {
        "dtype": name,
        "device": args.device if args.device == "cpu" else torch.cuda.get_device_name(),
        **{key: getattr(args, key) for key in ("photos", "together", "steps", "beams", "candidates")},
        "lm": dict(zip(("width", "layers", "heads"), size.lm, strict=True)),
        "seconds": seconds,
        "captions_per_second": len(results) / seconds,
        "steps_taken": sum(len(result.history) for result in results) / len(results),
        "exact_evaluations": sum(result.exact_evaluations for result in results),
        "gflop_per_caption": flops / 1e9,
        "tflop_per_second": flops * len(results) / seconds / 1e12,
        "device_tflop_per_second": rate / 1e12,
        "share_of_rate": flops * len(results) / seconds / rate,
        "lm_reads": lm.reader.name,
        "tower_reads": clip.reader.name,
    }
    if args.device != "cpu":
        row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    texts = list(dict.fromkeys(result.text for result in results))
    return row, searches[0].objective, texts


def difference(first: pf.Objective, second: pf.Objective, texts: Sequence[str]) -> dict[str, Any]:
    """By how much two objectives differ on texts, each scored by the book."""
    found: dict[str, float] = dict.fromkeys(TOLERANCE, 0.0)
    for text in texts:
        one, other = first.exact(text).terms, second.exact(text).terms
        found = {name: max(value, abs(one[name] - other[name])) for name, value in found.items()}
    return {
        "compared": list(DTYPES),
        "texts": len(texts),
        "max_abs_difference": found,
        "tolerance": TOLERANCE,
        "within_tolerance": all(found[name] <= TOLERANCE[name] for name in found),
    }


def show(row: dict[str, Any]) -> str:
    """A row in one line."""
    if "compared" in row:
        parts = ", ".join(f"{name} {value:.1e}" for name, value in row["max_abs_difference"].items())
        verdict = "within" if row["within_tolerance"] else "beyond"
        return f"bf16 against fp32 on {row['texts']} texts: {parts}; {verdict} tolerance"
    return (
        f"{row['dtype']} on {row['device']}: {row['captions_per_second']:.3g} captions/s "
        f"({row['photos']} photos, {row['together']} together, {row['steps_taken']:.0f} steps, "
        f"{row['beams']} beams, {row['candidates']} candidates, {row['lm']['layers']} layers); "
        f"{row['gflop_per_caption']:.0f} GFLOP each, {row['tflop_per_second']:.3g} TFLOP/s, "
        f"{100 * row['share_of_rate']:.0f}% of {row['device_tflop_per_second']:.3g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="by default cuda where there is one")
    parser.add_argument("--photos", type=int)
    parser.add_argument("--together", type=int, help="searches side by side")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--candidates", type=int, help="for each beam")
    parser.add_argument("--layers", type=int, help="of the language model")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--narrow", action="store_true", help="real vocabularies, tiny models")
    sizes.add_argument("--tiny", action="store_true", help="tiny models and vocabularies, for a quick trial")
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print a JSON object for each type")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    there = torch.cuda.is_available()
    if args.device == "cuda" and not there:
        parser.error("no CUDA device here; leave --device out to run small on the CPU")
    args.device = args.device or ("cuda" if there else "cpu")
    for name, value in (PAPER if args.device == "cuda" else SMALL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.device == "cpu":
        missing = "not measured: captions per second at the full size, which needs a GPU (none here is used)"
        print(missing, file=sys.stderr)
    objectives, texts = {}, []
    for name in args.dtypes:
        row, objectives[name], found = measure(name, args)
        texts = texts or found
        print(json.dumps(row) if args.json else show(row), flush=True)
    if len(objectives) == len(DTYPES):
        row = difference(objectives["bf16"], objectives["fp32"], texts)
        print(json.dumps(row) if args.json else show(row))


if __name__ == "__main__":
    main()
