"""Seconds of one step on a device at the shapes of the ``paper`` preset, beside a plain batched forward pass.

    python -m benchmarks.gpu_step [--device cuda|cpu] [--steps 8] [--beams 4] [--candidates 256] [--layers 24]
        [--dtypes bf16 fp32] [--tiny]

GPT-2 medium and CLIP ViT-B/32's text tower with random weights. *Plain batched* is what ``benchmarks.step``
calls so: every candidate whole in one padded batch, by ``transformers`` alone. Prints a JSON object for each
type: median seconds a step, texts scored exactly per second, seconds of the plain batched pass, peak memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from typing import Any

import torch

import promptfuse as pf
from benchmarks import shapes
from benchmarks.gpu import DTYPES, MEDIUM, wait
from benchmarks.step import Recorded, plain_batched
from promptfuse.search import AutoDAN, BeamSearch, Search


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time the steps of one search in one type."""
    size = shapes.TINY if args.tiny else replace(MEDIUM, lm=(1024, args.layers, 16))
    dtype, on_gpu = DTYPES[name], args.device != "cpu"
    lm, clip = shapes.gpt2(size, args.device, dtype), shapes.clip(size, args.device, dtype)
    term = Recorded(clip, shapes.photo())
    search = Search(
        pf.Objective(pf.Fluency(lm), term),
        AutoDAN(candidates=args.candidates),
        BeamSearch(args.beams),
        prefix=shapes.prompt(10, size),
        steps=10**6,
    )
    search.step()  # From the prefix to as many beams as asked for.
    search.step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    taken, texts = [], []
    for _ in range(args.steps):
        wait(args.device)
        started = time.perf_counter()
        step = search.step()
        wait(args.device)
        taken.append(time.perf_counter() - started)
        texts.append(step.proposed)
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    plain = []
    for _ in range(4):
        wait(args.device)
        started = time.perf_counter()
        plain_batched(lm, clip, term)
        wait(args.device)
        plain.append(time.perf_counter() - started)
    seconds = statistics.median(taken)
    return {
        "dtype": name,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "beams": args.beams,
        "candidates": args.candidates,
        "layers": size.lm[1],
        "seconds_a_step": seconds,
        "each_seconds": taken,
        "texts_a_second": sum(texts) / sum(taken),
        "batched_seconds": min(plain[1:]),
        "times_batched": min(plain[1:]) / seconds,
        "peak_gib": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=256, help="for each beam")
    parser.add_argument("--layers", type=int, default=24, help="of the language model")
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that it runs")
    args = parser.parse_args()
    for name in args.dtypes:
        print(json.dumps(measure(name, args)), flush=True)


if __name__ == "__main__":
    main()
