"""Readers for the training data.

Layout of the data folder (``--data DIR``); only the files of the model that is trained are needed::

    flickr8k/captions.json            [{"file", "split": "train"|"dev", "captions": [5 strings]}]
    flickr8k/images/*.jpg             the photos that captions.json names
    coco/captions.jsonl               {"image": "images/....jpg", "captions": [1 to 5 strings]} a line
    coco/images/*.jpg
    labelled/tiny_imagenet/labels.json, labelled/tiny_imagenet/<synset>/*.JPEG
    labelled/imagenet_one_per_class/<synset>_<name>.jpg
    labelled/objects/<kind>/*.jpg     photos of things, a folder each
    text/coco_2014_captions.txt       one caption a line
    text/senticap.tsv                 split <tab> positive or negative <tab> caption, with a header
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

HELD_OF_COCO = 300
"""Photos of COCO that are kept out of training, captions included."""

HELD_PER_KIND = 5
"""Photos of each kind of things that are kept out of training."""

OBJECT_NAMES = {
    "airplanes": ("airplane", "plane"),
    "bass": ("bass", "fish"),
    "buddha": ("buddha statue", "statue"),
    "car_side": ("car", "car from the side"),
    "cellphone": ("cell phone", "mobile phone"),
    "cougar_body": ("cougar",),
    "cougar_face": ("cougar face", "cougar"),
    "crocodile_head": ("crocodile head", "crocodile"),
    "euphonium": ("euphonium", "tuba"),
    "ewer": ("ewer", "jug"),
    "flamingo_head": ("flamingo head", "flamingo"),
    "hawksbill": ("sea turtle", "turtle"),
    "inline_skate": ("inline skate", "roller skate"),
    "ketch": ("sailboat", "sailing boat"),
    "leopards": ("leopard",),
    "lotus": ("lotus flower", "flower"),
    "motorbikes": ("motorcycle", "motorbike"),
    "schooner": ("sailing ship", "ship"),
    "soccer_ball": ("soccer ball", "ball"),
    "water_lilly": ("water lily", "flower"),
    "wild_cat": ("wild cat",),
    "windsor_chair": ("wooden chair", "chair"),
}
"""Plain names of the folders whose own name is none."""


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


def coco(data: Path, split: str) -> list[Photo]:
    """COCO's photos: ``held``, 300 of them by a checksum of the file's name, or ``train``, the others."""
    with (data / "coco" / "captions.jsonl").open(encoding="utf-8") as stream:
        rows = sorted(map(json.loads, stream), key=lambda row: zlib.crc32(row["image"].encode()))
    chosen = rows[:HELD_OF_COCO] if split == "held" else rows[HELD_OF_COCO:]
    return [Photo(data / "coco" / row["image"], tuple(row["captions"])) for row in chosen]


def captioned(data: Path) -> list[Photo]:
    """All captioned photos that training may see."""
    return [*coco(data, "train"), *flickr8k(data, "train")]


def coco_captions(data: Path) -> list[str]:
    """The COCO caption lines, without those of the held photos."""
    path = data / "text" / "coco_2014_captions.txt"
    held = {clean_caption(text).lower() for photo in coco(data, "held") for text in photo.captions}
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [line for line in lines if clean_caption(line).lower() not in held]


def senticap(data: Path, split: str) -> list[tuple[str, str]]:
    """SentiCap's sentences, cleaned, and whether each is ``positive`` or ``negative``."""
    with (data / "text" / "senticap.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(clean_caption(row["caption"]), row["label"]) for row in rows if row["split"] == split]


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


def objects(data: Path) -> list[LabelledPhoto]:
    """Photos of things; five of each kind are held out."""
    found: list[LabelledPhoto] = []
    for folder in sorted((data / "labelled" / "objects").iterdir()):
        files = sorted(folder.glob("*.jpg"), key=lambda path: zlib.crc32(path.name.encode()))
        names = OBJECT_NAMES.get(folder.name, (folder.name.replace("_", " "),))
        found += [LabelledPhoto(path, names, rank < HELD_PER_KIND) for rank, path in enumerate(files)]
    return found
