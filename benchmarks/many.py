"""Photos a minute: one at a time, in flight together, and on several processes.

    python -m benchmarks.many PHOTOS [--photos 200] [--in-flight 8] [--workers 2] [--models mini] [--json]

``PHOTOS`` is a folder; its first photos by name are captioned by the preset's search in all three ways.
Models are loaded before the first two begin. Processes load theirs, so they are timed twice: with their
start, and without it, which a call with one photo for each of them shows.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import promptfuse as pf
from promptfuse.tasks import caption_all


def timed(run: Callable[[], list[Any]]) -> tuple[float, list[Any]]:
    """Seconds, and what came out."""
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


def measure(photos: list[Path], in_flight: int, workers: int, models: str) -> dict[str, Any]:
    """Time all ways on the same photos."""
    captioner = pf.Captioner(models)
    captioner.load()
    captioner(photos[0])
    alone, expected = timed(lambda: [captioner(photo) for photo in photos])
    together, found = timed(lambda: caption_all(captioner, photos, in_flight=in_flight))

    def spread(chosen: list[Path]) -> list[Any]:
        return pf.caption_many(chosen, models=models, in_flight=in_flight, workers=workers)

    start, _ = timed(lambda: spread(photos[:workers]))
    start -= alone / len(photos)
    whole, others = timed(lambda: spread(photos))
    count = len(photos)
    return {
        "photos": count,
        "threads": torch.get_num_threads(),
        "in_flight": in_flight,
        "workers": workers,
        "one_at_a_time_per_minute": 60 * count / alone,
        "together_per_minute": 60 * count / together,
        "workers_per_minute": 60 * count / (whole - start),
        "workers_start_seconds": start,
        "together_times": alone / together,
        "workers_times": alone / (whole - start),
        "workers_times_with_start": alone / whole,
        "equal_texts": sum(
            one.text == two.text == three.text
            for one, two, three in zip(expected, found, others, strict=True)
        ),
        "max_abs_difference": max(
            abs(one.value - two.value) for one, two in zip(expected, others, strict=True)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="PHOTOS")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", default="mini")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    found = [
        path for path in sorted(args.folder.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    row = measure(found[: args.photos], args.in_flight, args.workers, args.models)
    if args.json:
        print(json.dumps(row))
        return
    print(
        f"{row['photos']} photos, {row['threads']} threads: "
        f"{row['one_at_a_time_per_minute']:.0f} a minute one at a time, "
        f"{row['together_per_minute']:.0f} with {row['in_flight']} in flight "
        f"({row['together_times']:.2f} times), "
        f"{row['workers_per_minute']:.0f} on {row['workers']} processes ({row['workers_times']:.2f} times; "
        f"{row['workers_times_with_start']:.2f} with their start of {row['workers_start_seconds']:.1f} s); "
        f"{row['equal_texts']} equal texts, max abs difference {row['max_abs_difference']:.1e}"
    )


if __name__ == "__main__":
    main()
