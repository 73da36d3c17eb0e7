"""Inversion beside other ways to invert: the same models, inputs and counting of queries.

    python -m benchmarks.inversion --texts FILE.txt --out runs/texts --lm smollm2 --encoder minilm
        [--recipes ours-2880 beams-10x9 beams-30x30 ...] [--first 0] [--count 30] [--plot FILE.png] [--json]
    python -m benchmarks.inversion --photos FILE... --out runs/photos --recipes ours-2880 pez-10s ...

A recipe is a name and, behind a hyphen, what it may use:

- ``ours-QUERIES``: ``promptfuse invert``.
- ``beams-WIDTHxCANDIDATES``: a beam search of the language model's likeliest tokens by cosine alone, in the
  manner of ZSInvert's first stage (arXiv 2504.00147), for as many steps as ``--length``.
- ``vgd-WIDTHxCANDIDATES``: beams by the sum of the log-probability and 1.5 times the encoder's logit, in the
  manner of VGD (ICLR 2025).
- ``pez-SECONDS``, ``pezfluent-SECONDS``: PEZ (arXiv 2302.03668) by cosine alone, or with our fluency term.
- ``phrases-QUERIES``: noun phrases of a built-in list, the nearest first and then, joined by commas, those$
  that come nearest to the target, in the manner of clip-interrogator.

Every result is appended to ``RECIPE.jsonl``, and a killed run goes on after it. All inputs of one recipe are
done before the next begins. Seconds are wall time; processor seconds stand beside them.

The judges: cosine under the encoder that was searched; for texts the F1 of the sets of words, BLEU-4 and the
rank of the source among all inputs; perplexity of the text under ``--reader``, a language model that was not
searched, and its cosine to the source under ``--outsider``, another encoder. Intervals are of 1,000
bootstrap samples of the inputs.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import promptfuse as pf
from benchmarks.metrics import caption_metrics
from benchmarks.runs import report
from promptfuse.search.methods.openings import opened
from promptfuse.tasks.inversion import Inverter
from promptfuse.tasks.inversion_inputs import Item, Target, read_targets
from promptfuse.tasks.query_meter import BudgetSpentError, QueryMeter, metered_term
from promptfuse.tasks.text_encoders import ModelEncoder

UNLIMITED = 10**9
WORD = re.compile(r"[A-Za-z0-9']+")


class Bench:
    """The models, loaded once, and the recipes."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.lm = pf.load_model(args.lm)
        self.encoder = ModelEncoder(pf.load_model(args.encoder))
        self.recipes: dict[str, Callable[[Target, str], tuple[str, QueryMeter]]] = {
            "beams": self.beams,
            "vgd": self.vgd,
            "pez": self.pez,
            "pezfluent": self.pez,
            "phrases": self.phrases,
        }

    def run(self, target: Target, recipe: str) -> dict[str, Any]:
        """A recipe's text for a target, with what it took."""
        for model in (self.lm, self.encoder.model):
            model.clear_text_cache()
        name, _, limit = recipe.partition("-")
        began, processor = time.perf_counter(), time.process_time()
        if name == "ours":
            inverter = Inverter(
                encoder=self.encoder.model, lm=self.lm, budget=int(limit), length=self.args.length
            )
            found = inverter(target)
            text, queries, curve = found.text, found.queries, found.curve
        else:
            text, meter = self.recipes[name](target, recipe)
            queries, curve = meter.queries, meter.curve
        return {
            "id": target.id,
            "text": text,
            "queries": queries,
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - processor,
            "curve": [[point.queries, point.similarity] for point in curve],
        }

    def _searched(
        self, target: Target, weights: tuple[float, float], method: pf.Method, width: int, **settings: Any
    ) -> tuple[str, QueryMeter]:
        """The best text of a search by the sum of the weighted terms."""
        meter = QueryMeter(UNLIMITED, settings.pop("seconds", None))
        exponent = settings.pop("length_exponent", 1.0)
        term = metered_term(self.encoder, target.vector, weights[1], meter)
        fluency = pf.Fluency(self.lm, weights[0], length_exponent=exponent)
        search = pf.Search(
            pf.Objective(fluency, term), method, pf.BeamSearch(width), complete=False, seed=0, **settings
        )
        try:
            for _ in search:
                pass
        except BudgetSpentError:
            pass
        # By cosine alone, the nearest of all that were read.
        nearest = weights[0] < 1e-6
        return (meter.curve[-1].text if nearest else search.best.text), meter

    def beams(self, target: Target, recipe: str) -> tuple[str, QueryMeter]:
        """Beams of the likeliest tokens by cosine alone."""
        width, candidates = map(int, recipe.partition("-")[2].split("x"))
        method = pf.AutoDAN(candidates, transport="none")
        steps = self.args.length
        return self._searched(target, (1e-9, 1.0), method, width, steps=steps, patience=steps)

    def vgd(self, target: Target, recipe: str) -> tuple[str, QueryMeter]:
        """Beams by the log-probability and the encoder's logit."""
        width, candidates = map(int, recipe.partition("-")[2].split("x"))
        method = pf.AutoDAN(candidates, transport="none")
        steps = self.args.length
        weights = (1.0, 1.5 * 100.0)  # CLIP multiplies cosines by 100.
        return self._searched(
            target, weights, method, width, steps=steps, patience=steps, length_exponent=0.0
        )

    def pez(self, target: Target, recipe: str) -> tuple[str, QueryMeter]:
        """PEZ for some seconds."""
        name, _, seconds = recipe.partition("-")
        weights = (1e-9, 1.0) if name == "pez" else (1.0, 40.0)
        method = pf.PEZ(length=self.args.length)
        return self._searched(
            target,
            weights,
            method,
            1,
            steps=UNLIMITED,
            patience=UNLIMITED,
            seconds=float(seconds.rstrip("s")),
        )

    def phrases(self, target: Target, recipe: str) -> tuple[str, QueryMeter]:
        """Noun phrases, joined by commas as long as that helps."""
        meter = QueryMeter(int(recipe.partition("-")[2]))
        term = metered_term(self.encoder, target.vector, 1.0, meter)
        listed = [text[0].upper() + text[1:] for text in opened("")]
        text = ""
        try:
            losses = term.score(listed, 256)
            ranked = [listed[index] for index in losses.argsort().tolist()[:256]]
            text, best = ranked[0], float(losses.min())
            while True:
                longer = [f"{text}, {phrase[0].lower()}{phrase[1:]}" for phrase in ranked]
                losses = term.score([one for one in longer if self._fits(one)], 256)
                if not len(losses) or float(losses.min()) >= best:
                    break
                best, text = float(losses.min()), longer[int(losses.argmin())]
        except BudgetSpentError:
            pass
        return text or meter.curve[-1].text, meter

    def _fits(self, text: str) -> bool:
        return len(self.lm.plain_ids([text])[0]) <= self.args.length


class Judges:
    """What is said of a text besides the cosine that was searched for."""

    def __init__(self, args: argparse.Namespace, targets: list[Target], bench: Bench) -> None:
        self.targets = targets
        self.encoder = bench.encoder
        self.reader = pf.Fluency(pf.load_model(args.reader))
        self.outsider = ModelEncoder(pf.load_model(args.outsider)) if args.outsider else None
        self.vectors = torch.stack([target.vector for target in targets])
        sources = [target.source for target in targets]
        self.known = all(sources)
        self.meant: Tensor | None = None
        if self.outsider is not None and self.known:
            self.meant = self.outsider.features([text or "" for text in sources])

    def columns(self, rows: list[dict[str, Any]]) -> dict[str, list[float]]:
        """Of each text, every judge's number."""
        texts = [row["text"] for row in rows]
        features = self.encoder.features(texts)
        cosines = features @ self.vectors.T
        own = cosines.diagonal()
        found = {
            "cosine": own.tolist(),
            "rank_1": ((cosines > own[:, None] + 1e-6).sum(1) == 0).double().tolist(),
            "nll": [float(self.reader.exact(text)) for text in texts],
        }
        if self.outsider is not None and self.meant is not None:
            found["outsider"] = (self.outsider.features(texts) * self.meant).sum(1).tolist()
        if self.known:
            sources = [target.source or "" for target in self.targets]
            found["f1"] = [word_f1(text, source) for text, source in zip(texts, sources, strict=True)]
            found["exact"] = [float(text == source) for text, source in zip(texts, sources, strict=True)]
        return found

    def summarise(self, recipe: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """A recipe's line of the table."""
        table: dict[str, Any] = {"recipe": recipe, "inputs": len(rows)}
        columns = self.columns(rows)
        for name, values in columns.items():
            table[name] = float(np.mean(values))
            table[f"{name}_interval"] = interval(values)
        table["cosine_median"] = median(columns["cosine"])
        table["perplexity_median"] = float(np.exp(median(columns["nll"])))
        if self.known:
            sources = [[target.source or ""] for target in self.targets]
            table["bleu4"] = caption_metrics([row["text"] for row in rows], sources)["bleu4"]
        for key in ("queries", "seconds", "processor_seconds"):
            table[key] = float(np.mean([row[key] for row in rows]))
        return table


def word_f1(text: str, source: str) -> float:
    """F1 of the sets of words, in lower case."""
    ours, theirs = (set(WORD.findall(one.lower())) for one in (text, source))
    common = len(ours & theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def interval(values: list[float]) -> list[float]:
    """The ends of the middle 95 % of 1,000 bootstrap means."""
    drawn = np.random.default_rng(0).choice(np.array(values), (1000, len(values))).mean(1)
    return [float(end) for end in np.quantile(drawn, [0.025, 0.975])]


def plot(rows: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Mean cosine of the nearest text so far against queries."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    colours = ("#a53b5b", "#3b6ea5", "#c98b2b", "#4f8a5b", "#7a5ba5", "#2b9c9c", "#8a8a8a")
    for colour, (recipe, found) in zip(colours, rows.items(), strict=False):
        most = max(row["queries"] for row in found)
        at = np.unique(np.geomspace(10, most, 60).astype(int))
        means = [np.mean([_reached(row["curve"], queries) for row in found]) for queries in at]
        axes.plot(at, means, color=colour, label=recipe)
    axes.set_xscale("log")
    axes.set_xlabel("texts that the encoder has read")
    axes.set_ylabel("cosine of the nearest so far (mean)")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _reached(curve: list[list[float]], queries: int) -> float:
    return max((similarity for at, similarity in curve if at <= queries), default=0.0)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What a file of results holds; a line that a kill cut off is made again."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n")]
    if len(kept) < len(lines):
        path.write_text("".join(kept), encoding="utf-8")
    return [json.loads(line) for line in kept]


def inputs(args: argparse.Namespace, encoder: ModelEncoder) -> list[Target]:
    """The embeddings to invert."""
    if args.texts:
        lines = [line for line in args.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
        items = [Item(str(number), f"line {number + 1}", line) for number, line in enumerate(lines)]
    else:
        items = [Item(path.name, str(path), path) for path in args.photos]
    chosen = items[args.first :][: args.count]
    targets, broken = read_targets(chosen, "text" if args.texts else "image", encoder)
    if broken:
        raise SystemExit(str(broken[0][1]))
    return targets


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--texts", type=Path, help="a text a line")
    source.add_argument("--photos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lm", default="mini-lm")
    parser.add_argument("--encoder", default="mini-clip")
    parser.add_argument("--reader", default="mini-lm", help="judges how texts read")
    parser.add_argument("--outsider", default="", help="an encoder that judges their meaning")
    parser.add_argument("--recipes", nargs="+", default=["ours-2880", "ours-720", "beams-10x9"])
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    targets = inputs(args, bench.encoder)
    rows: dict[str, list[dict[str, Any]]] = {}
    for recipe in args.recipes:
        path = args.out / f"{recipe}.jsonl"
        done = {row["id"]: row for row in read_rows(path)}
        with path.open("a", encoding="utf-8") as stream:
            for number, target in enumerate(targets):
                if target.id not in done:
                    done[target.id] = bench.run(target, recipe)
                    stream.write(json.dumps(done[target.id]) + "\n")
                    stream.flush()
                    shown = done[target.id]["text"]
                    print(f"{recipe} {number + 1}/{len(targets)}  {shown}", flush=True)
        rows[recipe] = [done[target.id] for target in targets]
    judges = Judges(args, targets, bench)
    report([judges.summarise(recipe, found) for recipe, found in rows.items()], args.out, args.json)
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
