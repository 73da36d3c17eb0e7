"""Karpathy's splits: ``dataset_coco.json``, ``dataset_flickr8k.json`` and ``dataset_flickr30k.json``.

Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions" (2015).
"""

from __future__ import annotations

from typing import Any

from promptfuse.evaluation.datasets.columns import Rejected, Unread, captions_in
from promptfuse.evaluation.datasets.records import Contents, Row
from promptfuse.evaluation.datasets.rows import KarpathyImage, as_fields, as_list, parse

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
    contents, unread, rejected = Contents(), Unread("field"), Rejected(keep_rejected)
    for number, fields in enumerate(as_list(as_fields(document, "top level").get("images"), "images")):
        place = f"images[{number}]"
        image = parse(KarpathyImage.model_validate, as_fields(fields, place), place)
        given = {"sentences": fields["sentences"]} if "sentences" in fields else fields
        captions = captions_in(given, place)
        unread.look(fields, captions.read or tuple(given.keys() & {"sentences"}), _NAMES)
        name = image.filename
        contents.rows.append(
            Row(
                place=place,
                id=image.cocoid or name,
                names=(f"{image.filepath}/{name}", name) if image.filepath else (name,),
                captions=rejected.texts(captions.entries),
                split=image.split,
            )
        )
    contents.problems += [*rejected.problems(), *unread.problems()]
    return contents
