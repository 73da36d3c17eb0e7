"""Seconds until a search has what the language model's own proposals find with many candidates.

    python -m benchmarks.time_to_value --flickr8k DIR --out runs/time [--photos 24] [--json]

``DIR`` holds ``captions.json`` and ``images/`` as training/data.py describes. For the first photos of the
dev split, the language model's proposals alone (``none``, ``--most`` candidates a beam) run to the preset's
last step, and so does AutoDAN with the lexical transport and each number of ``--candidates``. Behind every
step the seconds so far and the best finished caption's value so far are noted. Each search begins with
nothing remembered of earlier ones, but with models that have been used.

Each method is put beside the language model alone, whose value at its last step is the goal. Of the medians
over photos: the seconds (median over photos at that step) until the median best value is first at or below
the goal's median. Photo by photo: the share of photos whose best value comes to the goal of the same photo,
and the median over those of how many times faster than the language model alone. A photo without a finished
caption has no value yet, which counts as infinitely bad.

Every photo's steps are appended to ``<transport>-<candidates>.jsonl``; a killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import median
from typing import Any

import promptfuse as pf
from benchmarks.runs import keep_settings, read_photos, report, run_method

SLACK = 1e-4
"""Nats by which a value may miss the goal: as much as batches of another size change it."""

Course = list[tuple[float, float]]
"""Seconds so far and the best value so far, behind every step of a search."""


class Bench:
    """The models, loaded once."""

    def __init__(self, models: str, steps: int | None) -> None:
        self.captioner = pf.Captioner(models)
        self.captioner.load()
        self.preset = self.captioner.preset
        self.steps = steps or self.preset.steps

    def caption(self, transport: Any, candidates: int, image: Path) -> dict[str, Any]:
        """All steps of one photo's search, which begins with nothing remembered."""
        self.captioner.clear_text_cache()
        # Weights are packed again, which otherwise happens once in a process.
        self._search(transport, candidates, image, "Other words", 2).run()
        search = self._search(transport, candidates, image, self.preset.prefix, self.steps)
        course = []
        for step in search:
            best = search.finished.best()
            course.append((step.seconds, None if best is None else best.value))
        return {"text": search.best.text, "exact_evaluations": search.exact_evaluations, "course": course}

    def _search(self, transport: Any, candidates: int, image: Path, prefix: str, steps: int) -> pf.Search:
        """A search that stops at its last step only."""
        return pf.Search(
            self.captioner.objective(image),
            pf.AutoDAN(candidates, transport=transport),
            pf.BeamSearch(self.preset.beams),
            prefix=prefix,
            steps=steps,
            patience=steps,
        )


def read_course(record: dict[str, Any]) -> Course:
    """A photo's steps as they were written down, with infinity for no value."""
    return [(seconds, math.inf if value is None else value) for seconds, value in record["course"]]


def seconds_to(course: Course, goal: float) -> float:
    """The seconds until a value is at or below the goal; infinite if it never is."""
    return next((seconds for seconds, value in course if value <= goal + SLACK), math.inf)


def medians(courses: list[Course]) -> Course:
    """Step by step, the medians over photos; a search that has ended stays where it is."""
    steps = range(max(map(len, courses)))
    return [
        (
            median(course[min(step, len(course) - 1)][0] for course in courses),
            median(course[min(step, len(course) - 1)][1] for course in courses),
        )
        for step in steps
    ]


def compare(own: list[Course], reference: list[Course]) -> dict[str, Any]:
    """Figures of a method beside those of the reference, photo by photo in the same order."""
    middle, goals = medians(reference), [course[-1][1] for course in reference]
    goal = median(goals)
    needed, theirs = seconds_to(medians(own), goal), seconds_to(middle, goal)
    each = [
        (seconds_to(course, value), seconds_to(other, value))
        for course, other, value in zip(own, reference, goals, strict=True)
        if math.isfinite(value)
    ]
    ratios = [mine / other for mine, other in each if math.isfinite(mine)]
    return {
        "photos": len(own),
        "value": median(course[-1][1] for course in own),
        "goal": goal,
        "seconds": median(course[-1][0] for course in own),
        "seconds_to_goal": _finite(needed),
        "reference_seconds_to_goal": theirs,
        "reference_seconds": middle[-1][0],
        "times_faster_to_goal": theirs / needed,
        "times_faster_than_whole": middle[-1][0] / needed,
        "reached": len(ratios) / len(own),
        "times_faster_where_reached": 1 / median(ratios) if ratios else None,
    }


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--start", type=int, default=0, help="the first photo of the split")
    parser.add_argument("--split", choices=("train", "dev"), default="dev")
    parser.add_argument("--models", default="mini")
    parser.add_argument("--candidates", type=int, nargs="+", default=[8, 4])
    parser.add_argument("--most", type=int, default=256, help="candidates of the language model alone")
    parser.add_argument("--steps", type=int, help="of each search; the preset's by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    photos = read_photos(args.flickr8k, args.split, args.start, args.photos)
    bench = Bench(args.models, args.steps)
    settings = {"preset": bench.preset.model_dump(), "split": args.split, "start": args.start}
    keep_settings(args.out, {**settings, "steps": bench.steps})
    plan = [("none", args.most), *(("lexical", count) for count in args.candidates)]
    courses = {}
    for transport, count in plan:
        records = run_method(
            f"{transport}-{count}",
            photos,
            args.out,
            lambda index, image, name=transport, number=count: bench.caption(name, number, image),
            args.flickr8k / "images",
        )
        courses[transport, count] = [read_course(record) for record in records]
    reference = courses["none", args.most]
    report(
        [
            {"transport": transport, "candidates": count, **compare(own, reference)}
            for (transport, count), own in courses.items()
        ],
        args.out,
        args.json,
    )


if __name__ == "__main__":
    main()
