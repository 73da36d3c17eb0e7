"""Readers for the training data.

Layout of the data folder (``--data DIR``); only the files of the model that is trained are needed::

    flickr8k/captions.json            [{"file", "split": "train"|"dev", "captions": [5 strings]}]
    flickr8k/images/*.jpg             the photos that captions.json names
    labelled/tiny_imagenet/labels.json, labelled/tiny_imagenet/<synset>/*.JPEG
    labelled/imagenet_one_per_class/<synset>_<name>.jpg
    text/coco_val2017_captions.txt    one caption a line
    text/sst2/{train,dev}.tsv         sentence <tab> label, with a header
    text/imdb_10k.tsv                 sentence <tab> label, with a header
    text/wikitext2_valid.txt          running text
    models/mobilenet_v2_imagenet/dequantised_f32.npz

To train on your own photos, write a ``captions.json`` of the same form.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

HELD_PER_CLASS = 10
"""Photos of each tiny-imagenet class that are kept out of training, to measure zero-shot accuracy."""


@dataclass(frozen=True)
class Photo:
    """One captioned photo."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class LabelledPhoto:
    """One photo with the names of its class, most specific first."""

    path: Path
    names: tuple[str, ...]
    held: bool


def clean_caption(text: str) -> str:
    """Put a caption into the one form that the language model learns.

    One sentence, a capital at the start, no blank before punctuation, a full stop at the end, and
    no upper-case shouting, which Flickr8k has here and there.
    """
    text = re.sub(r"\s+", " ", text.replace('"', " ").replace("`", "'")).strip()
    text = re.sub(r"\s+([.,!?;:'])", r"\1", text)
    text = re.sub(r"\s*-\s*", "-", text) if re.search(r"\w - \w", text) else text
    text = text.rstrip(" .!;,:").strip()
    if not text:
        return ""
    if text.isupper():
        text = text.lower()
    return text[0].upper() + text[1:] + "."


def flickr8k(data: Path, split: str) -> list[Photo]:
    """The photos of one split, in the order of the file."""
    rows = json.loads((data / "flickr8k" / "captions.json").read_text(encoding="utf-8"))
    return [
        Photo(data / "flickr8k" / "images" / row["file"], tuple(row["captions"]))
        for row in rows
        if row["split"] == split
    ]


def coco_captions(data: Path) -> list[str]:
    """The COCO caption lines."""
    path = data / "text" / "coco_val2017_captions.txt"
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def labelled_text(path: Path) -> list[tuple[str, int]]:
    """Read ``sentence <tab> label`` rows with a header line."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(reader)
        return [(row[0].strip(), int(row[1])) for row in reader if len(row) == 2 and row[0].strip()]


def detokenise(text: str) -> str:
    """Undo the Penn-Treebank spacing of SST-2 (``does n't work .`` -> ``doesn't work.``)."""
    text = text.replace("-lrb-", "(").replace("-rrb-", ")").replace("`` ", '"').replace(" ''", '"')
    text = re.sub(r" (n't|'s|'re|'ve|'ll|'d|'m)\b", r"\1", text)
    text = re.sub(r" ([.,!?;:)'])", r"\1", text)
    return re.sub(r"\( ", "(", text).strip()


def sentences(text: str) -> list[str]:
    """Cut running text into sentences at ``.``, ``!`` or ``?`` followed by a blank."""
    text = re.sub(r"<br\s*/?>", " ", text)
    text = re.sub(r"\s+", " ", text)
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]


def labelled_photos(data: Path) -> list[LabelledPhoto]:
    """The ImageNet photos with class names; the last of each tiny-imagenet class are held out."""
    found: list[LabelledPhoto] = []
    tiny = data / "labelled" / "tiny_imagenet"
    labels: dict[str, str] = json.loads((tiny / "labels.json").read_text(encoding="utf-8"))
    for synset in sorted(labels):
        names = tuple(name.strip() for name in labels[synset].split(","))
        # Ordered by a checksum of the name, so that the held photos are an arbitrary but fixed draw.
        files = sorted((tiny / synset).glob("*.JPEG"), key=lambda path: zlib.crc32(path.name.encode()))
        for rank, path in enumerate(files):
            found.append(LabelledPhoto(path, names, rank < HELD_PER_CLASS))
    for path in sorted((data / "labelled" / "imagenet_one_per_class").glob("*.jpg")):
        name = path.stem.split("_", 1)[1].replace("_", " ")
        found.append(LabelledPhoto(path, (name,), False))
    return found
