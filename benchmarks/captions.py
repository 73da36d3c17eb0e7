"""Captions of our search beside four baselines on the same models, at equal exact evaluations.

    python -m benchmarks.captions --flickr8k DIR --out runs/captions [--photos 200] [--json]

``DIR`` holds ``captions.json`` and ``images/`` as training/data.py describes; the first photos of the dev
split are used. Every finished caption is appended to ``<method>.jsonl``, so a killed run goes on where it
stopped. The methods:

* ``preset``: what the command line does, stopping early included.
* ``ours``: the preset's search to its last step.
* ``lm-proposals``: the same search with the gradient switched off.
* ``random-proposals``: the same search with tokens drawn uniformly.
* ``lm-alone``: the same beam search with the language model as the only term; one text for all photos.
* ``best-of-256``: the most image-similar of 256 samples of the language model.
* ``best-of-n``: the sample with the best objective among as many as ``ours`` scores.

All have the same budget of exact evaluations, but ``preset``, which stops early, and ``best-of-256``. The
settings are kept beside the captions; another preset needs another folder.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import promptfuse as pf
from benchmarks.metrics import caption_metrics
from benchmarks.runs import keep_settings, read_photos, report, run_method
from benchmarks.samples import sample_captions
from promptfuse.objectives import Objective
from promptfuse.search import Method

METHODS = ("preset", "ours", "lm-proposals", "random-proposals", "lm-alone", "best-of-256", "best-of-n")


class Bench:
    """The models, and what the methods share."""

    def __init__(self, models: str, pool: int, work: Path) -> None:
        self.captioner = pf.Captioner(models)
        self.captioner.load()
        self.preset = self.captioner.preset
        self.pool_size = pool
        self.work = work
        self._pool: tuple[list[str], torch.Tensor, torch.Tensor] | None = None
        self._alone: pf.Result | None = None

    def method(self, name: str) -> Method:
        """Settings of a searching method."""
        count = self.preset.candidates
        if name == "random-proposals":
            return pf.RandomAppend(count)
        return pf.AutoDAN(count, transport="none" if name in ("lm-proposals", "lm-alone") else "lexical")

    def search(self, name: str, objective: Objective, seed: int) -> pf.Result:
        """Search to the last step; ``preset`` may stop early."""
        stopping = {} if name == "preset" else {"patience": self.preset.steps}
        search = pf.Search(
            objective,
            self.method(name),
            pf.BeamSearch(self.preset.beams),
            prefix=self.preset.prefix,
            steps=self.preset.steps,
            seed=seed,
            **stopping,
        )
        return search.run()

    @property
    def budget(self) -> int:
        """The most texts that the preset's search scores: one beam at first, then all."""
        return self.preset.candidates * (1 + self.preset.beams * (self.preset.steps - 1))

    def pool(self) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """Samples of the language model with their NLL and text features, made once."""
        if self._pool is None:
            path = self.work / "samples.json"
            lm = self.captioner.model("lm")
            if not path.exists():
                texts = sample_captions(lm, self.pool_size, seed=0)
                path.write_text(json.dumps(texts), encoding="utf-8")
            texts = json.loads(path.read_text(encoding="utf-8"))
            clip = self.captioner.model("image_text")
            nll = pf.Fluency(lm).score(texts)
            with torch.no_grad():
                parts = [
                    clip.text_features(clip.encode(texts[i : i + 256])) for i in range(0, len(texts), 256)
                ]
            self._pool = texts, nll, torch.cat(parts)
        return self._pool

    def best_sample(self, objective: Objective, count: int, seed: int, by_image: bool) -> tuple[str, int]:
        """The best of ``count`` samples, drawn from the pool afresh for each photo."""
        texts, nll, features = self.pool()
        draw = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))[:count]
        image = objective.terms["image"]
        losses = 1 - features[draw] @ image.features
        if not by_image:
            losses = objective.terms["fluency"].weight * nll[draw] + image.weight * losses
        return texts[int(draw[losses.argmin()])], count

    def caption(self, name: str, image: Path, seed: int) -> dict[str, Any]:
        """One caption with its value scored from scratch."""
        started = time.perf_counter()
        objective = self.captioner.objective(image)
        if name == "lm-alone":
            if self._alone is None:
                self._alone = self.search(name, Objective(objective.terms["fluency"]), 0)
            text, evaluations = self._alone.text, self._alone.exact_evaluations
        elif name.startswith("best-of"):
            by_image = name == "best-of-256"
            text, evaluations = self.best_sample(objective, 256 if by_image else self.budget, seed, by_image)
        else:
            result = self.search(name, objective, seed)
            text, evaluations = result.text, result.exact_evaluations
        seconds = time.perf_counter() - started
        exact = objective.exact(text)
        return {
            "text": text,
            "value": exact.value,
            "nll": exact.terms["fluency"],
            "similarity": 1 - exact.terms["image"],
            "exact_evaluations": evaluations,
            "seconds": seconds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--models", default="mini")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--pool", type=int, default=20_000, help="samples that best-of-n draws from")
    parser.add_argument("--json", action="store_true", help="print one JSON object a method")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = read_photos(args.flickr8k, "dev", 0, args.photos)
    bench = Bench(args.models, args.pool, args.out)
    keep_settings(args.out, {"preset": bench.preset.model_dump(), "pool": args.pool})
    table = []
    for name in args.methods:
        records = run_method(
            name,
            rows,
            args.out,
            lambda index, image, name=name: bench.caption(name, image, index),
            args.flickr8k / "images",
        )
        mean = {
            key: sum(record[key] for record in records) / len(records)
            for key in ("similarity", "nll", "value", "exact_evaluations", "seconds")
        }
        scores = caption_metrics([record["text"] for record in records], [row["captions"] for row in rows])
        table.append({"method": name, "photos": len(records), **mean, **scores})
    report(table, args.out, args.json)


if __name__ == "__main__":
    main()
