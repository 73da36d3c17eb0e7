"""Captions in COCO's format, which nocaps and others use too: ``captions_val2014.json``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from promptfuse.evaluation.datasets.columns import Rejected, Unread
from promptfuse.evaluation.datasets.records import Contents, Row
from promptfuse.evaluation.datasets.rows import CocoAnnotation, CocoImage, as_fields, as_list, parse

_REMEDY = "give a file of captions, such as captions_val2014.json"


def read_coco(document: Any, keep_rejected: bool = False) -> Contents:
    """The photos of a parsed file, in the order of ``images``, those without captions too.

    Captions keep the order of ``annotations``. Those of photos that are not in the file are left out and
    reported among the problems, and so are those that VizWiz rejected, and fields that look like captions and
    are not read. Files for testing have no ``annotations`` at all.

    Args:
        document: the parsed file.
        keep_rejected: whether rejected captions count.

    Raises:
        ConfigError: if a field is missing or of a wrong type, or the annotations are not captions.
    """
    top = as_fields(document, "top level")
    contents, unread, rejected = Contents(), Unread("field", words=False), Rejected(keep_rejected)
    by_id: dict[str, list[str]] = {}
    for number, fields in enumerate(as_list(top.get("images"), "images")):
        place = f"images[{number}]"
        image = parse(CocoImage.model_validate, as_fields(fields, place), place)
        unread.look(fields, ())
        row = Row(place=place, id=image.id, names=(image.file_name,), captions=[])
        by_id.setdefault(row.id, row.captions)
        contents.rows.append(row)
    unknown: Counter[str] = Counter()
    for number, fields in enumerate(as_list(top.get("annotations", []), "annotations")):
        place = f"annotations[{number}]"
        annotation = parse(CocoAnnotation.model_validate, as_fields(fields, place), place, _REMEDY)
        unread.look(fields, ("caption",))
        if rejected.drops(annotation):
            continue
        if annotation.image_id in by_id:
            by_id[annotation.image_id].append(annotation.caption)
        else:
            unknown[annotation.image_id] += 1
    if unknown:
        first = ", ".join(list(unknown)[:3]) + (", ..." if len(unknown) > 3 else "")
        count = unknown.total()
        contents.problems.append(
            f"{count:,} caption{'s' * (count > 1)} left out: no photo in 'images' has the image_id {first}"
        )
    contents.problems += [*rejected.problems(), *unread.problems()]
    return contents
