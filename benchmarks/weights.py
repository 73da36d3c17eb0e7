"""Choose a preset's weights on training photos.

    python -m benchmarks.weights --flickr8k DIR [--photos 40] [--image 4 6 8 10 14 22] [--json]

For each image weight: how fluent the captions are, how similar to the photo, and how they compare with
people's (CIDEr-D, BLEU-4). With ``--sentiment W ...`` the image weight is the preset's and the weight of the
sentiment varies: what share of captions the classifier puts into the asked class, and the similarity lost.
The photos are from the middle of the train split, never from dev.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import promptfuse as pf
from benchmarks.metrics import caption_metrics
from benchmarks.runs import read_photos


def mean(values: list[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--start", type=int, default=3000, help="the first photo of the train split")
    parser.add_argument("--models", default="mini")
    parser.add_argument("--image", type=float, nargs="+", help="image weights to try")
    parser.add_argument("--sentiment", type=float, nargs="+", help="sentiment weights to try")
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--beams", type=int)
    parser.add_argument("--show", type=int, default=4, help="captions to print for each weight")
    parser.add_argument("--json", action="store_true", help="print one JSON object a weight")
    args = parser.parse_args()
    rows = read_photos(args.flickr8k, "train", args.start, args.photos)
    captioner = pf.Captioner(args.models)
    captioner.load("positive")
    labels = captioner.preset.labels
    search: dict[str, Any] = {"candidates": args.candidates, "beams": args.beams}

    trials: list[tuple[dict[str, float], list[str | None]]] = []
    trials += [({"image": weight}, [None]) for weight in args.image or []]
    trials += [({"sentiment": weight}, list(labels)) for weight in args.sentiment or []]
    for weights, sentiments in trials:
        results, right = [], []
        for row in rows:
            for sentiment in sentiments:
                image = args.flickr8k / "images" / row["file"]
                result = captioner(image, sentiment=sentiment, weights=weights, **search)
                results.append(result)
                if sentiment is not None:
                    right.append(result.terms["sentiment"] < 0.6931)  # ln 2: the likelier of two labels
        texts = [result.text for result in results]
        found: dict[str, Any] = {
            **weights,
            "nll": mean([result.terms["fluency"] for result in results]),
            "similarity": mean([1 - result.terms["image"] for result in results]),
            "words": mean([len(text.split()) for text in texts]),
            "complete": mean([result.complete for result in results]),
            "seconds": mean([result.seconds for result in results]),
        }
        if right:
            found["right"] = mean([float(value) for value in right])
        else:
            found |= caption_metrics(texts, [row["captions"] for row in rows])
        if args.json:
            print(json.dumps(found), flush=True)
        else:
            line = (
                f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
                for key, value in found.items()
            )
            print("  ".join(line), flush=True)
            for text in texts[: args.show]:
                print(f"    {text}", flush=True)


if __name__ == "__main__":
    main()
