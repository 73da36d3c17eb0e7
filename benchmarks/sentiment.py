"""Captions with a sentiment beside plain ones: what the classifier says, and what it costs.

    python -m benchmarks.sentiment --flickr8k DIR --out runs/sentiment [--photos 100] [--json]

Plain, positive and negative captions of the first dev photos behind those of benchmarks/captions.py.
Finished captions are kept in ``<sentiment>.jsonl``, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import promptfuse as pf
from benchmarks.metrics import caption_metrics
from benchmarks.runs import keep_settings, read_photos, report, run_method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--start", type=int, default=200, help="the first photo of the dev split")
    parser.add_argument("--models", default="mini")
    parser.add_argument("--json", action="store_true", help="print one JSON object a sentiment")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = read_photos(args.flickr8k, "dev", args.start, args.photos)
    captioner = pf.Captioner(args.models)
    captioner.load("positive")
    keep_settings(args.out, {"preset": captioner.preset.model_dump(), "start": args.start})
    tone = captioner.model("sentiment")
    judges = {name: pf.ClassProbability(tone, label) for name, label in captioner.preset.labels.items()}

    def caption(label: str, image: Path) -> dict[str, Any]:
        started = time.perf_counter()
        result = captioner(image, sentiment=None if label == "plain" else label)
        losses = {name: judge.exact(result.text) for name, judge in judges.items()}
        return {
            "text": result.text,
            "nll": result.terms["fluency"],
            "similarity": 1 - result.terms["image"],
            "class": min(losses, key=lambda name: losses[name]),
            "seconds": time.perf_counter() - started,
        }

    table = []
    for label in ("plain", *judges):
        records = run_method(
            label,
            rows,
            args.out,
            lambda index, image, label=label: caption(label, image),
            args.flickr8k / "images",
        )
        row: dict[str, Any] = {"sentiment": label, "photos": len(records)}
        for name in judges:
            row[f"share_{name}"] = sum(record["class"] == name for record in records) / len(records)
        for key in ("similarity", "nll", "seconds"):
            row[key] = sum(record[key] for record in records) / len(records)
        row |= caption_metrics([record["text"] for record in records], [row["captions"] for row in rows])
        table.append(row)
    for row in table:
        row["similarity_lost"] = 1 - row["similarity"] / table[0]["similarity"]
    report(table, args.out, args.json)


if __name__ == "__main__":
    main()
