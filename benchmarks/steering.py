"""What a sentiment costs: runs over a data set with growing weights of the sentiment, as a curve.

    python -m benchmarks.steering --data flickr8k/captions.json --split dev --out runs/steering [--photos 100]
    promptfuse report runs/steering/*/ --out steering.html

Each weight is a data-set run in a folder of its own, with the configuration beside it, so a killed run goes
on where it stopped and ``promptfuse run`` can do each again. Weight 0 is the plain caption. The table shows
the share of captions that the classifier gives the label, the similarity to the photo and what is lost of
it, CIDEr-D with its interval, and the mean NLL per token. With ``--judge-texts`` also the share by a judge
that was not searched (docs/guide/score.md, "A judge of your own").
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import promptfuse as pf
from benchmarks.runs import report
from promptfuse.cli._options import text_judge
from promptfuse.evaluation.metrics import Score, score
from promptfuse.evaluation.metrics.text_judge import LIMIT
from promptfuse.evaluation.predictions import Prediction, read_predictions
from promptfuse.evaluation.recipes import describe, load_recipe
from promptfuse.evaluation.runs import DatasetRunConfig, run_dataset

WEIGHTS = (0, 0.25, 0.5, 1, 1.5, 2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="as in the configuration of a run")
    parser.add_argument("--images", help="the folder of the photos, where the data set does not tell")
    parser.add_argument("--split")
    parser.add_argument("--start", type=int, default=0, help="photos to leave out at the front")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--recipe", default="ours")
    parser.add_argument("--sentiments", nargs="+", default=["positive", "negative"])
    parser.add_argument("--weights", nargs="+", type=float, default=WEIGHTS)
    parser.add_argument("--judge-texts", nargs="+", help="labelled texts, as promptfuse score takes them")
    parser.add_argument("--judge-model", help="sentence encoder of the judge that is trained on them")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", action="store_true", help="print one JSON object a weight")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    judge = text_judge(args.judge_texts, args.judge_model, LIMIT, "cpu")
    if judge is not None:
        print(f"judge: {judge.accuracy:.1%} of texts that it was not trained on", flush=True)

    def run(name: str, changes: dict[str, Any]) -> dict[str, Prediction]:
        """The captions of a run, by the photos' ids."""
        config = DatasetRunConfig(
            data=args.data,
            images=args.images,
            split=args.split,
            start=args.start,
            limit=args.photos,
            name=name,
            recipe=describe(load_recipe(args.recipe, **changes)),
            in_flight=args.in_flight,
        )
        (args.out / f"{name}.yaml").write_text(config.to_yaml(), encoding="utf-8")
        end = run_dataset(config, args.out / name)
        print(f"{name}: {end.done} photos, {end.failed} failed, {end.fresh} now", flush=True)
        lines = read_predictions(args.out / name / "predictions.jsonl")
        return {line.id: line for line in lines if line.text is not None}

    dataset = DatasetRunConfig(
        data=args.data, images=args.images, split=args.split, start=args.start, limit=args.photos
    ).read()
    references = {photo.id: photo.references for photo in dataset.photos}
    captioner = pf.Captioner(load_recipe(args.recipe).preset())
    fluency = pf.Fluency(captioner.model("lm"))

    def measure(lines: dict[str, Prediction], sentiment: str) -> dict[str, Any]:
        texts = {id_: line.text or "" for id_, line in lines.items()}
        found = score(
            texts,
            {id_: references[id_] for id_ in texts},
            metrics=["cider_d", "sentiment_accuracy"],
            classifier=captioner.model("sentiment"),
            label=captioner.preset.labels[sentiment],
        ).metrics
        accuracy, cider = found["sentiment_accuracy"], found["cider_d"]
        assert isinstance(accuracy, Score)
        return {
            "share": accuracy.value,
            "share_low": accuracy.low,
            "share_high": accuracy.high,
            **({} if judge is None else {"judged": judge.shares(list(texts.values()))[sentiment]}),
            "similarity": sum(1 - line.terms["image"] for line in lines.values()) / len(lines),
            # Without references there is none.
            **(
                {"cider_d": cider.value, "cider_d_low": cider.low, "cider_d_high": cider.high}
                if isinstance(cider, Score)
                else {}
            ),
            "nll": float(fluency.score(list(texts.values())).mean()),
            "seconds": sum(line.seconds for line in lines.values()) / len(lines),
        }

    plain = run("plain", {})
    table: list[dict[str, Any]] = []
    for sentiment in args.sentiments:
        runs = {0.0: plain}
        for weight in sorted({*args.weights} - {0.0}):
            changes = {"sentiment": sentiment, "sentiment_weight": weight}
            runs[weight] = run(f"{sentiment}-{weight:g}", changes)
        # On the photos that every run captioned, so that rows can be compared.
        common = set.intersection(*(set(lines) for lines in runs.values()))
        rows = []
        for weight, lines in runs.items():
            chosen = {id_: line for id_, line in lines.items() if id_ in common}
            rows.append(
                {
                    "sentiment": sentiment,
                    "weight": weight,
                    "photos": len(chosen),
                    **measure(chosen, sentiment),
                }
            )
        for row in rows:
            row["similarity_lost"] = 1 - row["similarity"] / rows[0]["similarity"]
        table += rows
    report(table, args.out, args.json)


if __name__ == "__main__":
    main()
