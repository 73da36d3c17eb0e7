"""What the documentation shows of data sets is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from promptfuse.evaluation.datasets import names, read_dataset
from promptfuse.evaluation.datasets.names import KNOWN

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "guide" / "datasets.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FORMATS = ["table", "table", "karpathy", "coco"]


@pytest.mark.parametrize("number", range(len(FORMATS)))
def test_the_examples_are_of_their_format(write, number):
    kind, text = [block for block in BLOCKS if block[0] in ("csv", "json")][number]
    dataset = read_dataset(write(f"example.{kind}", text))
    assert dataset.format == FORMATS[number]
    assert dataset.photos[0].references
    assert len(dataset.photos) == (2 if dataset.format == "table" else 1)


def test_the_example_of_names_is_read(write, tmp_path, monkeypatch):
    (text,) = [text for kind, text in BLOCKS if kind == "yaml"]
    write("datasets.yaml", text)
    monkeypatch.setenv("PROMPTFUSE_DATA", str(tmp_path))
    assert names.find_name("holidays").source == str(tmp_path / "photos" / "2024")
    assert names.find_name("reviews").images == "s3://bucket/products"


def test_all_known_names_are_told():
    for name, known in KNOWN.items():
        assert f"`{name}`" in TEXT
        assert f"`{known.files[0]}`" in TEXT or name.startswith("coco-")
