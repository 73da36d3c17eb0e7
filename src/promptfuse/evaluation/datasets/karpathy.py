"""Karpathy's splits: ``dataset_coco.json``, ``dataset_flickr8k.json`` and ``dataset_flickr30k.json``.

Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions" (2015).
"""

from __future__ import annotations

from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.fields import as_caption, as_fields, as_list, as_text
from promptfuse.evaluation.datasets.records import Contents, Row

RESTVAL = "restval"
"""The split of COCO's validation photos that are neither in ``val`` nor in ``test``. The field trains on
them, so that they belong to ``train`` when that is asked for."""


def read_karpathy(document: Any) -> Contents:
    """The photos of a parsed file.

    The id is ``cocoid`` where there is one, so that captions can be scored against COCO's own file, and the
    file's name elsewhere.

    Raises:
        ConfigError: if a field is missing or of a wrong type.
    """
    contents = Contents()
    for number, image in enumerate(as_list(as_fields(document, "top level").get("images"), "images")):
        place = f"images[{number}]"
        fields = as_fields(image, place)
        filename = as_text(fields.get("filename"), f"{place}.filename")
        if not filename:
            raise ConfigError(f"{place}: the field 'filename' is missing; add it")
        folder = as_text(fields.get("filepath"), f"{place}.filepath")
        captions = [
            _caption(as_fields(sentence, f"{place}.sentences[{index}]"), f"{place}.sentences[{index}]")
            for index, sentence in enumerate(as_list(fields.get("sentences", []), f"{place}.sentences"))
        ]
        contents.rows.append(
            Row(
                place=place,
                id=as_text(fields.get("cocoid"), f"{place}.cocoid") or filename,
                names=(f"{folder}/{filename}", filename) if folder else (filename,),
                captions=captions,
                split=as_text(fields.get("split"), f"{place}.split"),
            )
        )
    return contents


def _caption(sentence: dict[str, Any], place: str) -> str:
    """A sentence as it was written; its words where only these are there."""
    if sentence.get("raw") is None and "tokens" in sentence:
        words = as_list(sentence["tokens"], f"{place}.tokens")
        return " ".join(as_caption(word, f"{place}.tokens") for word in words)
    return as_caption(sentence.get("raw"), f"{place}.raw")
