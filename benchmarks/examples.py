"""Captions of all twenty example photos, right or wrong: a page, a picture of the first eight, and a count.

    python -m benchmarks.examples [--out docs]

Writes ``examples.md`` and ``examples.jpg``. A caption counts as right where one of the nouns of
``examples/photos_further/objects.yaml`` is among its words; those were written down before the captions of
the further twelve were read.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

import promptfuse as pf
from promptfuse._utils.yaml_files import read_yaml

EXAMPLES = Path(__file__).parent.parent / "examples"
OBJECTS = EXAMPLES / "photos_further" / "objects.yaml"
TONES = (None, "positive", "negative")
IN_PICTURE = 8


@dataclass(frozen=True)
class Example:
    """A photo and what was found.

    Attributes:
        path: relative to ``examples``.
        nouns: words of which one names the main object.
        texts: the plain, positive and negative caption.
    """

    path: str
    nouns: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The photo's name."""
        return Path(self.path).stem

    def names(self, text: str) -> bool:
        """Whether a caption names the main object."""
        return not set(re.findall(r"[a-z]+", text.lower())).isdisjoint(self.nouns)


def captioned(effort: str) -> list[Example]:
    """All examples in the alphabetical order of their names."""
    captioner = pf.Captioner("mini")
    found = []
    rows: dict[str, list[str]] = read_yaml(OBJECTS, "photos/cat.jpg: [cat]")
    for path, nouns in sorted(rows.items(), key=lambda row: Path(row[0]).stem):
        texts = tuple(captioner(EXAMPLES / path, sentiment=tone, effort=effort).text for tone in TONES)
        found.append(Example(path, tuple(nouns), texts))
        print(f"{found[-1].name}: {texts[0]}", flush=True)
    return found


def page(examples: list[Example]) -> str:
    """The page as Markdown."""
    right = sum(one.names(one.texts[0]) for one in examples)
    lines = [
        "# The twenty example photos",
        "",
        "All twenty, right or wrong: the eight of [photos](../../examples/photos), and twelve chosen by a",
        "rule that was written before any of their captions was read",
        "([the rule](../../examples/photos_further/README.md)). No caption was picked by hand. Each is the",
        "output of `promptfuse caption PHOTO` with the embedded models, plain and with `--sentiment`.",
        f"The plain caption names the main object of **{right} of {len(examples)}** photos. The nouns that",
        "count were fixed beforehand ([list](../../examples/photos_further/objects.yaml)).",
        "",
        "```sh",
        "python -m benchmarks.examples",
        "```",
        "",
        "| photo | plain | names it | positive | negative |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in examples:
        plain, positive, negative = one.texts
        mark = "yes" if one.names(plain) else "**no**"
        image = f'<img src="../../examples/{one.path}" alt="{one.name.replace("_", " ")}" width="160">'
        lines.append(f"| {image} | {plain} | {mark} | {positive} | {negative} |")
    return "\n".join(lines) + "\n"


def picture(examples: list[Example], target: Path) -> None:
    """The first eight photos with their captions below."""
    figure = Figure(figsize=(13, 10.2))
    for axis, one in zip(figure.subplots(2, IN_PICTURE // 2).flat, examples, strict=False):
        with Image.open(EXAMPLES / one.path) as photo:
            photo.thumbnail((300, 300))
            x, y = (side / max(photo.size) for side in photo.size)
            axis.imshow(photo, extent=((1 - x) / 2, (1 + x) / 2, 1 - y, 1), aspect="equal")
        axis.axis("off")
        axis.set_xlim(0, 1)
        axis.set_ylim(-0.62, 1)
        below = 1 - y - 0.03
        for text, colour in zip(one.texts, ("#222222", "#2e7d32", "#b23b3b"), strict=True):
            wrapped = textwrap.wrap(text, 36)
            axis.text(0, below, "\n".join(wrapped), ha="left", va="top", fontsize=10, color=colour)
            below -= 0.062 * len(wrapped) + 0.03
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99, 0.06, 0.02)
    figure.savefig(target, dpi=100, facecolor="white", pil_kwargs={"quality": 88})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--effort", default="default")
    args = parser.parse_args()
    examples = captioned(args.effort)
    for folder in ("research", "images"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    (args.out / "research" / "examples.md").write_text(page(examples), encoding="utf-8")
    picture(examples[:IN_PICTURE], args.out / "images" / "examples.jpg")
    for column, tone in enumerate(("plain", "positive", "negative")):
        right = sum(one.names(one.texts[column]) for one in examples)
        print(f"{tone}: the main object is named in {right} of {len(examples)}")


if __name__ == "__main__":
    main()
