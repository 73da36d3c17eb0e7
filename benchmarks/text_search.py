"""A search for the words of a sentence with a real language model and a real sentence encoder.

    python -m benchmarks.text_search --texts FILE --out runs/text [--sentences 50] [--lm smollm2]
        [--encoder minilm] [--methods lexical-8 lexical-4 ...] [--most 256] [--plot FILE.png] [--json]

``FILE`` has a sentence a line. For each of them the text is sought that the language model finds fluent and
whose embedding is like the sentence's. The language model's proposals alone, with ``--most`` candidates a
beam, are the reference; its best value at its last step is the goal. Every method is named by its transport
and its candidates a beam, and may have options: ``lexical-8,ridge=3,beams=8``.
All methods do one sentence before the next one begins, in an order that turns, so
that a machine's noise falls on all of them. Seconds are given by the clock and of the processors.

Of each method: the share of sentences where it comes to the goal, the medians over sentences of its best
value, of its exact evaluations and seconds to the goal, and of their share of the reference's whole search.
A sentence that does not come to the goal counts as infinitely slow. Every search is appended to
``results.jsonl``; a killed run goes on after it, and methods can be added to a run later.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from statistics import median
from typing import Any

import promptfuse as pf
from benchmarks.runs import keep_settings, report

SLACK = 1e-4
"""Nats by which a value may miss the goal."""

COLOURS = ("#a53b5b", "#3b6ea5", "#c98b2b", "#4f8a5b", "#7a5ba5", "#2b9c9c", "#b06a3b", "#5b5b8a")


class Bench:
    """The models, loaded once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.lm, self.encoder = pf.load_model(args.lm), pf.load_model(args.encoder)
        self.args = args

    def search(self, sentence: str, method: str, steps: int) -> pf.Search:
        """A search that stops at its last step only."""
        named, *given = method.split(",")
        transport, _, count = named.rpartition("-")
        options = {key: float(value) for key, value in (one.split("=") for one in given)}
        beams = int(options.pop("beams", self.args.beams))
        terms = pf.Fluency(self.lm), pf.TextSimilarity(self.encoder, sentence, weight=self.args.weight)
        return pf.Search(
            pf.Objective(*terms),
            pf.AutoDAN(int(count), transport=transport, **options),  # type: ignore[arg-type]
            pf.BeamSearch(beams),
            steps=steps,
            patience=steps,
        )

    def course(self, sentence: str, method: str) -> dict[str, Any]:
        """The best finished text's value after every step, with what it took so far."""
        for model in (self.lm, self.encoder):
            model.clear_text_cache()
        search = self.search(sentence, method, self.args.steps)
        began, processor, rows = time.perf_counter(), time.process_time(), []
        for _ in search:
            best = search.finished.best()
            rows.append(
                {
                    "value": None if best is None else best.value,
                    "evaluations": search.exact_evaluations,
                    "seconds": time.perf_counter() - began,
                    "processor_seconds": time.process_time() - processor,
                }
            )
        return {"text": search.best.text, "terms": search.best.terms, "course": rows}


def to_goal(course: list[dict[str, Any]], goal: float, key: str) -> float:
    """What it took until a value is at or below the goal; infinite if it never is."""
    reached = (row[key] for row in course if row["value"] is not None and row["value"] <= goal + SLACK)
    return next(reached, math.inf)


def best(course: list[dict[str, Any]]) -> float:
    """The value at the end."""
    value = course[-1]["value"]
    return math.inf if value is None else value


def finite(number: float) -> float | None:
    """JSON has no infinity."""
    return number if math.isfinite(number) else None


def summarise(rows: list[dict[str, Any]], method: str, reference: str) -> dict[str, Any]:
    """The figures of a method over all sentences."""
    own = [row["methods"][method]["course"] for row in rows]
    other = [row["methods"][reference]["course"] for row in rows]
    goals = [best(course) for course in other]
    found: dict[str, Any] = {
        "method": method,
        "sentences": len(rows),
        "value": finite(median(map(best, own))),
        "goal": finite(median(goals)),
        "similarity": median(1 - row["methods"][method]["terms"]["text"] for row in rows),
        "reached": sum(best(course) <= goal + SLACK for course, goal in zip(own, goals, strict=True))
        / len(rows),
    }
    for key in ("evaluations", "seconds", "processor_seconds"):
        needed = [to_goal(course, goal, key) for course, goal in zip(own, goals, strict=True)]
        whole = [course[-1][key] for course in other]
        first = [to_goal(course, goal, key) for course, goal in zip(other, goals, strict=True)]
        found[f"{key}_to_goal"] = finite(median(needed))
        found[f"{key}_of_whole"] = finite(median(a / b for a, b in zip(needed, whole, strict=True)))
        found[f"{key}_of_first"] = finite(median(a / b for a, b in zip(needed, first, strict=True)))
    return found


def plot(rows: list[dict[str, Any]], methods: list[str], path: Path) -> None:
    """The median best value against exact evaluations and processor seconds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for index, method in enumerate(methods):
        courses = [row["methods"][method]["course"] for row in rows]
        steps = range(min(map(len, courses)))
        values = [median(best(course[: step + 1]) for course in courses) for step in steps]
        for axis, key in zip(axes, ("evaluations", "processor_seconds"), strict=True):
            taken = [median(course[step][key] for course in courses) for step in steps]
            shown = [(x, y) for x, y in zip(taken, values, strict=True) if math.isfinite(y)]
            colour = "#8a8a8a" if method.startswith("none") else COLOURS[index % len(COLOURS)]
            axis.plot(*zip(*shown, strict=True), marker="o", markersize=3, color=colour, label=method)
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_xlabel("exact evaluations (median)")
    axes[1].set_xlabel("processor seconds (median)")
    axes[0].set_ylabel("best value (median; lower is better)")
    axes[1].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=50)
    parser.add_argument("--lm", default="smollm2")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument(
        "--methods", nargs="+", default=["lexical-8", "lexical-4", "t-product-paper-8", "none-8"]
    )
    parser.add_argument("--most", type=int, default=256, help="candidates a beam of the language model alone")
    parser.add_argument("--weight", type=float, default=30.0, help="of 1 - cosine beside nats a token")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sentences = [line.strip() for line in args.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    sentences = sentences[: args.sentences]
    reference = f"none-{args.most}"
    methods = [reference, *args.methods]
    kept = {name: getattr(args, name) for name in ("lm", "encoder", "weight", "beams", "steps")}
    keep_settings(args.out, kept)
    path = args.out / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = {(row["sentence"], row["method"]): row for row in rows}
    open_ones = [(text, method) for text in sentences for method in methods if (text, method) not in found]
    bench = Bench(args) if open_ones else None
    if bench is not None:
        for method in methods:  # Transports are fitted and weights packed once in a process.
            bench.search("Other words.", method, 2).run()
        with path.open("a", encoding="utf-8") as stream:
            for index, sentence in enumerate(sentences):
                turned = methods[index % len(methods) :] + methods[: index % len(methods)]
                for method in (name for name in turned if (sentence, name) in set(open_ones)):
                    row = {"sentence": sentence, "method": method, **bench.course(sentence, method)}
                    found[sentence, method] = row
                    stream.write(json.dumps(row) + "\n")
                    stream.flush()
                    value = best(row["course"])
                    print(f"{index + 1}/{len(sentences)}  {method} {value:.2f}  {row['text']}", flush=True)
    rows = [
        {"sentence": text, "methods": {method: found[text, method] for method in methods}}
        for text in sentences
    ]
    report([summarise(rows, method, reference) for method in methods], args.out, args.json)
    if args.plot:
        plot(rows, methods, args.plot)


if __name__ == "__main__":
    main()
