"""Captions for the metrics, and what to do where there is no Java."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from promptfuse.evaluation.metrics.java import find_java

SHARED = Path(__file__).parents[4] / "shared" / "data"

WRITTEN = {
    "dog": ["A brown dog runs on the beach.", "The dog runs along the shore!", "A dog is running by the sea"],
    "cat": ['A cat sleeps on a "sofa".', "The cat's asleep on the couch.", "A grey cat, sleeping (again)"],
    "bike": ["A man rides a bike down the street.", "Someone's riding a mountain-bike in traffic."],
    "boat": [
        "Two people don't leave their boat.",
        "2 people sit in a small boat; it's red.",
        "A boat on a lake",
    ],
    "kids": ["Three kids play soccer in the park at 5 p.m.", "Children are playing football outside."],
    "food": ["A plate of food with rice and/or beans", "A white plate - full of food - on a table"],
}
SYSTEM = {
    "dog": "a brown dog is running on the beach",
    "cat": "A cat is sleeping on the couch.",
    "bike": "a man riding a bike down the street",
    "boat": "two people in a boat",
    "kids": "a group of children play soccer",
    "food": "a bowl of soup",
}


@pytest.fixture
def written() -> dict[str, list[str]]:
    return {id_: list(texts) for id_, texts in WRITTEN.items()}


@pytest.fixture
def system() -> dict[str, str]:
    return dict(SYSTEM)


@pytest.fixture
def made_up() -> tuple[dict[str, str], dict[str, list[str]]]:
    """300 photos with captions from a small grammar, some of them right."""
    draw = random.Random(5)
    parts = [
        ["a", "the", "one"],
        ["small", "big", "brown", "wet"],
        ["dog", "cat", "boy", "girl", "horse", "bird"],
        ["runs", "sleeps", "plays", "jumps"],
        ["on", "near", "under"],
        ["the beach", "a table", "a field", "the street", "a lake"],
    ]

    def say() -> list[str]:
        return [draw.choice(part) for part in parts]

    def changed(words: list[str], much: float) -> str:
        return " ".join(
            draw.choice(part) if draw.random() < much else word
            for word, part in zip(words, parts, strict=True)
        )

    predictions, references = {}, {}
    for number in range(300):
        truth = say()
        references[str(number)] = [changed(truth, 0.3) for _ in range(draw.randint(1, 5))]
        predictions[str(number)] = changed(truth, 0.4)
    return predictions, references


@pytest.fixture
def java() -> str:
    found = find_java()
    if found is None:
        pytest.skip("there is no Java here")
    return found


@pytest.fixture
def flickr() -> list[dict[str, Any]]:
    """Photos of Flickr8k with five captions each: the training split and half of the other."""
    file = SHARED / "flickr8k" / "captions.json"
    if not file.is_file():
        pytest.skip("Flickr8k's captions are not here")
    rows = json.loads(file.read_text(encoding="utf-8"))
    dev = [row for row in rows if row["split"] == "dev"]
    return [row for row in rows if row["split"] == "train"] + dev[:500]


@pytest.fixture
def coco_captions() -> list[str]:
    file = SHARED / "text" / "coco_2014_captions.txt"
    if not file.is_file():
        pytest.skip("COCO's captions are not here")
    return [" ".join(line.split()) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file into a folder of the test's own."""

    def put(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return put
