"""Compare ``weights="auto"`` with the best fixed weight that a grid finds, for four pairs of models.

    python -m benchmarks.auto_weights --flickr8k DIR --out runs/weights [--pairs mini smollm2] [--json]

``DIR`` holds ``captions.json`` and ``images/`` as training/data.py describes. A pair is a language model and
a model that compares: mini-clip with a photo (``image``), or MiniLM with a sentence (``text``), the first
caption of the photo, which the search does not see otherwise.

Fluency has weight 1. For each weight of the grid the texts of the first ``--inputs`` photos from ``--start``
are searched. The best weight is the one with the highest CIDEr-D against people's captions of the photo (for
sentences, those other than the target): a judgement in which no model has a part. CIDEr-D of 20 texts tells
weights apart badly, so ``--best`` takes a weight that a reader of the texts chose instead. On as many *other*
photos, the next ones, the mean loss of each term with automatic weights is put beside that with the best
weight.

All texts are kept in ``--out``; a killed run continues.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import promptfuse as pf
from benchmarks.metrics import caption_metrics
from benchmarks.runs import keep_settings, read_photos, report, run_method
from promptfuse.models.context import read_context

EXAMPLES = Path(__file__).parent.parent / "examples" / "example_captions.txt"
"""Five captions that SmolLM2 reads before every caption."""


@dataclass(frozen=True)
class Pair:
    """Two models that search together.

    Attributes:
        lm: the language model.
        other: the model of the similarity.
        kind: ``image`` or ``text``: what the text is compared with.
        context: whether the language model reads the example captions first.
        length_exponent: of the fluency.
        grid: fixed weights of the similarity to try.
    """

    lm: str
    other: str
    kind: str
    context: bool = False
    length_exponent: float = 0.65
    grid: tuple[float, ...] = (2.0, 3.0, 4.5, 6.75, 10.0, 15.0, 22.0)


PAIRS = {
    "mini": Pair("mini-lm", "mini-clip", "image", length_exponent=0.5),
    "smollm2": Pair("smollm2", "mini-clip", "image", context=True),
    "smollm2-minilm": Pair("smollm2", "minilm", "text"),
    "mini-minilm": Pair("mini-lm", "minilm", "text"),
}


class Bench:
    """One pair's searches."""

    def __init__(self, pair: Pair, names: dict[str, str], beams: int, candidates: int) -> None:
        self.pair, self.beams, self.candidates = pair, beams, candidates
        self.lm, self.other = (loaded(names.get(name, name)) for name in (pair.lm, pair.other))
        self.context = read_context(f"@{EXAMPLES}") if pair.context else ""

    def search(self, row: dict[str, Any], image: Path, weight: float | None) -> dict[str, Any]:
        """The text of one photo; None for automatic weights."""
        given = 1.0 if weight is None else weight
        fluency = pf.Fluency(self.lm, length_exponent=self.pair.length_exponent, context=self.context)
        similarity: pf.Term = (
            pf.ImageSimilarity(self.other, image, given, name="similarity")
            if self.pair.kind == "image"
            else pf.TextSimilarity(self.other, row["captions"][0], given, name="similarity")
        )
        result = pf.optimize(
            [fluency, similarity],
            pf.AutoDAN(self.candidates),
            pf.BeamSearch(self.beams),
            steps=20,
            weights="auto" if weight is None else "given",
        )
        return {
            "text": result.text,
            "terms": result.terms,
            "weights": result.weights,
            "seconds": result.seconds,
        }

    def references(self, row: dict[str, Any]) -> list[str]:
        """People's captions that the text is compared with."""
        captions: list[str] = row["captions"]
        return captions if self.pair.kind == "image" else captions[1:]

    def column(
        self, name: str, rows: list[dict[str, Any]], out: Path, images: Path, weight: float | None
    ) -> dict[str, Any]:
        """All texts of one weight, and what they come to."""
        found = run_method(
            name, rows, out, lambda index, image: self.search(rows[index], image, weight), images
        )
        metrics = caption_metrics([one["text"] for one in found], [self.references(row) for row in rows])
        ratios = [one["weights"]["similarity"] / one["weights"]["fluency"] for one in found]
        return {
            "similarity_to_fluency": mean(ratios),
            "fluency": mean([one["terms"]["fluency"] for one in found]),
            "similarity": mean([one["terms"]["similarity"] for one in found]),
            "cider_d": metrics["cider_d"],
            "words": mean([len(one["text"].split()) for one in found]),
            "seconds": mean([one["seconds"] for one in found]),
        }


@cache
def loaded(name: str) -> pf.Model:
    """A model, loaded once for all pairs."""
    return pf.load_model(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the texts")
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--inputs", type=int, default=20, help="photos of the grid, and as many others")
    parser.add_argument("--start", type=int, default=300, help="the first photo of the dev split")
    parser.add_argument("--grid", nargs="+", type=float, help="fixed weights to try, the same for all pairs")
    parser.add_argument(
        "--best", metavar="PAIR=WEIGHT", action="append", default=[], help="a best weight that was read off"
    )
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument(
        "--model", metavar="NAME=PATH", action="append", default=[], help="where smollm2 or minilm is"
    )
    parser.add_argument("--grid-only", action="store_true", help="leave the other photos alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(args, name) for name in ("inputs", "start", "beams", "candidates")}
    keep_settings(args.out, settings)
    rows = read_photos(args.flickr8k, "dev", args.start, 2 * args.inputs)
    tuned, others, images = rows[: args.inputs], rows[args.inputs :], args.flickr8k / "images"
    names = dict(pair.split("=", 1) for pair in args.model)
    by_hand = {name: float(weight) for name, weight in (pair.split("=", 1) for pair in args.best)}
    table: list[dict[str, Any]] = []
    for name in args.pairs:
        bench = Bench(PAIRS[name], names, args.beams, args.candidates)
        grid = args.grid or PAIRS[name].grid
        columns = [bench.column(f"{name}-{weight:g}", tuned, args.out, images, weight) for weight in grid]
        table += [
            {"pair": name, "weights": f"{weight:g}", "inputs": "grid", **column}
            for weight, column in zip(grid, columns, strict=True)
        ]
        best = by_hand.get(name) or max(zip(grid, columns, strict=True), key=lambda one: one[1]["cider_d"])[0]
        if not args.grid_only:
            for label, weight in ((f"best: {best:g}", best), ("auto", None)):
                kept = "auto" if weight is None else f"best-{weight:g}"
                column = bench.column(f"{name}-{kept}", others, args.out, images, weight)
                table.append({"pair": name, "weights": label, "inputs": "others", **column})
            fixed, auto = table[-2:]
            for term in ("fluency", "similarity"):
                auto[f"{term}_change"] = auto[term] / fixed[term] - 1
        report(table, args.out, args.json)


if __name__ == "__main__":
    main()
