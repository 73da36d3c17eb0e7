"""Objective against exact evaluations: what each transport's gradient is worth in the search.

    python -m benchmarks.curve --flickr8k DIR --out runs/curve [--photos 100] [--plot FILE.png] [--json]

``DIR`` holds ``captions.json`` and ``images/`` as training/data.py describes; the first photos of the dev
split are captioned by the preset's search, to its last step, with every transport (``none`` is the language
model's proposals alone) and every number of candidates a beam. The mean objective is shown with the
difference from ``none`` at its most candidates on the same photos, and that difference's 95% interval
(bootstrap over photos).

Every finished caption is appended to ``<transport>-<candidates>.jsonl``; a killed run goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import promptfuse as pf
from benchmarks.runs import keep_settings, read_photos, run_method
from promptfuse.evaluation.metrics.base import mean
from promptfuse.evaluation.metrics.bootstrap import intervals

TRANSPORTS = ("none", "t-product-paper", "t-product", "lexical")
COLOURS = dict(zip(TRANSPORTS, ("#8a8a8a", "#c98b2b", "#3b6ea5", "#a53b5b"), strict=True))


def interval(values: np.ndarray) -> tuple[float, float]:
    """Bootstrap 95% interval of the mean."""
    (found,) = intervals([mean("difference", "difference", "neither", values.tolist())], resamples=2000)
    return found.low, found.high


class Bench:
    """The models, loaded once."""

    def __init__(self, models: str) -> None:
        self.captioner = pf.Captioner(models)
        self.captioner.load()
        self.preset = self.captioner.preset

    def caption(self, transport: Any, candidates: int, image: Path) -> dict[str, Any]:
        """One caption with its value scored from scratch."""
        search = pf.Search(
            self.captioner.objective(image),
            pf.AutoDAN(candidates, transport=transport),
            pf.BeamSearch(self.preset.beams),
            prefix=self.preset.prefix,
            steps=self.preset.steps,
            patience=self.preset.steps,
        )
        result = search.run()
        return {
            "text": result.text,
            "value": result.value,
            "exact_evaluations": result.exact_evaluations,
            "seconds": result.seconds,
        }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw a curve for each transport."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for transport in TRANSPORTS:
        own = [row for row in rows if row["transport"] == transport]
        if own:
            axis.plot(
                [row["exact_evaluations"] for row in own],
                [row["objective"] for row in own],
                "o-",
                color=COLOURS[transport],
                label="language model alone" if transport == "none" else transport,
            )
    axis.set_xscale("log")
    axis.set_xlabel("exact evaluations per photo")
    axis.set_ylabel("objective (lower is better)")
    axis.set_title(f"{rows[0]['photos']} photos")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    low, high = row["interval"]
    return (
        f"{row['transport']:<16}{row['candidates']:>4} a beam {row['exact_evaluations']:>7.0f} exact  "
        f"objective {row['objective']:.3f}  difference {row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]  "
        f"reached on {row['reached']:.0%}  {row['seconds']:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--start", type=int, default=0, help="the first photo of the split")
    parser.add_argument("--split", choices=("train", "dev"), default="dev")
    parser.add_argument("--models", default="mini")
    parser.add_argument("--transports", nargs="+", default=list(TRANSPORTS), choices=TRANSPORTS)
    parser.add_argument("--candidates", type=int, nargs="+", default=[4, 8, 16, 64])
    parser.add_argument("--most", type=int, default=256, help="candidates of the language model alone")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    photos = read_photos(args.flickr8k, args.split, args.start, args.photos)
    bench = Bench(args.models)
    keep_settings(args.out, {"preset": bench.preset.model_dump(), "split": args.split, "start": args.start})
    plan = [(name, count) for name in args.transports for count in args.candidates]
    if args.most not in args.candidates:
        plan.append(("none", args.most))
    found = {}
    for transport, count in sorted(plan, key=lambda item: item[1]):
        found[transport, count] = run_method(
            f"{transport}-{count}",
            photos,
            args.out,
            lambda index, image, name=transport, number=count: bench.caption(name, number, image),
            args.flickr8k / "images",
        )
    values = {key: np.array([record["value"] for record in records]) for key, records in found.items()}
    reference = values["none", args.most]
    rows = []
    for (transport, count), records in sorted(found.items()):
        difference = values[transport, count] - reference
        rows.append(
            {
                "transport": transport,
                "candidates": count,
                "photos": len(photos),
                "exact_evaluations": float(np.mean([record["exact_evaluations"] for record in records])),
                "objective": float(values[transport, count].mean()),
                "median": float(np.median(values[transport, count])),
                "difference": float(difference.mean()),
                "interval": interval(difference),
                "reached": float((difference <= 1e-4).mean()),
                "seconds": float(np.mean([record["seconds"] for record in records])),
            }
        )
    (args.out / "summary.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    for row in rows:
        print(json.dumps(row) if args.json else line(row))
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
