"""Caption the example photos, plain, positive and negative, and write one page about it.

python examples/demo.py [--out demo.html] [PHOTO ...]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import promptfuse as pf
from promptfuse.report.search.page import Card, write_page
from promptfuse.search import Result

PHOTOS = Path(__file__).parent / "photos"
INTRO = (
    "No captioning model wrote these. A small language model, an image-text model and a sentiment "
    "classifier, each with a tokenizer of its own, were searched for one text that all of them like."
)


def main() -> None:
    """Caption the photos and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", nargs="*", type=Path, help="photos; the example photos by default")
    parser.add_argument("--out", type=Path, default=Path("demo.html"))
    args = parser.parse_args()

    started = time.perf_counter()
    captioner = pf.Captioner("mini")
    captioner.load("positive")
    print(f"models loaded in {time.perf_counter() - started:.1f} s", flush=True)
    cards = []
    for photo in args.photos or sorted(PHOTOS.glob("*.jpg")):
        results: list[tuple[str, Result]] = []
        print(photo.name, flush=True)
        for label in (None, "positive", "negative"):
            result = captioner(photo, sentiment=label)
            results.append((label or "plain", result))
            print(f"  {label or 'plain':<9} {result.text}  ({result.seconds:.1f} s)", flush=True)
        cards.append(Card(photo.stem.replace("_", " "), photo, results))
    write_page(args.out, "One text that three models agree on", cards, INTRO)
    print(f"wrote {args.out} in {time.perf_counter() - started:.1f} s; open it in a browser")


if __name__ == "__main__":
    main()
