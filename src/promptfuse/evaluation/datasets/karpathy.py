"""Karpathy's splits: ``dataset_coco.json``, ``dataset_flickr8k.json`` and ``dataset_flickr30k.json``.

Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions" (2015).
"""

from __future__ import annotations

from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.columns import Unread, captions_in, several_captions
from promptfuse.evaluation.datasets.fields import as_fields, as_list, as_text
from promptfuse.evaluation.datasets.records import Contents, Row
from promptfuse.evaluation.datasets.rejected import Rejected

RESTVAL = "restval"
"""The split of COCO's validation photos that are neither in ``val`` nor in ``test``. The field trains on
them, so that they belong to ``train`` when that is asked for."""

_NAMES = ("filepath", "filename", "cocoid", "imgid")


def read_karpathy(document: Any, keep_rejected: bool = False) -> Contents:
    """The photos of a parsed file.

    The id is ``cocoid`` where there is one, so that captions can be scored against COCO's own file, and the
    file's name elsewhere.

    Args:
        document: the parsed file.
        keep_rejected: whether captions that are marked as rejected count.

    Raises:
        ConfigError: if a field is missing or of a wrong type.
    """
    contents, unread = Contents(), Unread("field")
    rejected = Rejected(keep_rejected)
    for number, image in enumerate(as_list(as_fields(document, "top level").get("images"), "images")):
        place = f"images[{number}]"
        fields = as_fields(image, place)
        filename = as_text(fields.get("filename"), f"{place}.filename")
        if not filename:
            raise ConfigError(f"{place}: the field 'filename' is missing; add it")
        folder = as_text(fields.get("filepath"), f"{place}.filepath")
        read: tuple[str, ...] = ("sentences",)
        if "sentences" in fields:
            captions = several_captions(fields["sentences"], f"{place}.sentences", rejected)
        else:
            _, captions, read = captions_in(fields, place, rejected)
        unread.look(fields, read, _NAMES)
        contents.rows.append(
            Row(
                place=place,
                id=as_text(fields.get("cocoid"), f"{place}.cocoid") or filename,
                names=(f"{folder}/{filename}", filename) if folder else (filename,),
                captions=captions,
                split=as_text(fields.get("split"), f"{place}.split"),
            )
        )
    contents.problems += [*rejected.problems(), *unread.problems()]
    return contents
