"""Captions in COCO's format, which nocaps and others use too: ``captions_val2014.json``."""

from __future__ import annotations

from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.columns import Unread
from promptfuse.evaluation.datasets.fields import as_caption, as_fields, as_list, as_text, shown
from promptfuse.evaluation.datasets.records import Contents, Row
from promptfuse.evaluation.datasets.rejected import Rejected


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
    for number, image in enumerate(as_list(top.get("images"), "images")):
        place = f"images[{number}]"
        fields = as_fields(image, place)
        image_id = as_text(fields.get("id"), f"{place}.id")
        name = as_text(fields.get("file_name"), f"{place}.file_name")
        if not image_id or not name:
            raise ConfigError(f"{place}: the field {'file_name' if image_id else 'id'!r} is missing; add it")
        unread.look(fields, ())
        row = Row(place=place, id=image_id, names=(name,), captions=[])
        by_id.setdefault(image_id, row.captions)
        contents.rows.append(row)
    unknown: dict[str, int] = {}
    for number, annotation in enumerate(as_list(top.get("annotations", []), "annotations")):
        place = f"annotations[{number}]"
        fields = as_fields(annotation, place)
        if "caption" not in fields:
            raise ConfigError(
                f"{place}: the field 'caption' is missing; give a file of captions, "
                f"such as captions_val2014.json, found {shown(sorted(fields))}"
            )
        image_id = as_text(fields.get("image_id"), f"{place}.image_id")
        if not image_id:
            raise ConfigError(f"{place}: the field 'image_id' is missing; add it")
        caption = as_caption(fields["caption"], f"{place}.caption")
        unread.look(fields, ("caption",))
        if rejected.drops(fields):
            continue
        if image_id in by_id:
            by_id[image_id].append(caption)
        else:
            unknown[image_id] = unknown.get(image_id, 0) + 1
    if unknown:
        first = ", ".join(list(unknown)[:3]) + (", ..." if len(unknown) > 3 else "")
        count = sum(unknown.values())
        contents.problems.append(
            f"{count:,} caption{'s' * (count > 1)} left out: no photo in 'images' has the image_id {first}"
        )
    contents.problems += [*rejected.problems(), *unread.problems()]
    return contents
