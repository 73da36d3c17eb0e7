"""Tables of photos and captions, whatever their files are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.columns import NoImageColumnError, Rejected, Unread, captions_in
from promptfuse.evaluation.datasets.documents import Record
from promptfuse.evaluation.datasets.records import Contents, Row
from promptfuse.evaluation.datasets.rows import IMAGE_COLUMNS, TableRow, parse


def read_table(records: Iterable[Record], keep_rejected: bool = False, what: str = "column") -> Contents:
    """The photos of a table, in the order in which they come first.

    Rows with one caption each are grouped by photo: by id and image, or by image where there are no ids. The
    id is the image as it is written where there is no column for it. Columns that look like captions and are
    not read are among the problems, and so is the number of rejected captions.

    Args:
        records: the rows.
        keep_rejected: whether captions that the data set marks as rejected count.
        what: columns are called in messages.

    Raises:
        ConfigError: if no column names the photos, a value is of a wrong type, or rows of one photo
            contradict each other.
    """
    contents, unread, rejected = Contents(), Unread(what), Rejected(keep_rejected)
    grouped: dict[tuple[str, str], Row] = {}
    for place, fields in records:
        found = parse(TableRow.model_validate, fields, place)
        image = found.image
        if not image:
            column = next((name for name in IMAGE_COLUMNS if name in fields), None)
            if column is not None:
                raise ConfigError(
                    f"{place}: the column {column!r} is empty; name the photo, or remove the row"
                )
            raise NoImageColumnError(
                f"{place}: no column names the photo; call it one of {', '.join(IMAGE_COLUMNS)} "
                f"(found {', '.join(fields) or 'none'})"
            )
        given = captions_in(fields, place)
        unread.look(fields, given.read)
        captions = rejected.texts(given.entries)
        key = (found.id or image, image)
        before = grouped.get(key)
        if before is not None and not given.single and (captions or not before.captions):
            before = None  # The photo once more, not a row without its caption beside others.
        if before is None:
            row = Row(place, key[0], _names(image), captions, found.split)
            contents.rows.append(row)
            if given.single or not captions:
                grouped[key] = row
        elif before.split != found.split:
            raise ConfigError(
                f"{place}: {image} is in the split {found.split!r} here and in {before.split!r} in "
                f"{before.place}; put a photo into one split"
            )
        else:
            before.captions.extend(captions)
    contents.problems += [*rejected.problems(), *unread.problems()]
    return contents


def _names(image: str) -> tuple[str, ...]:
    """What the file of a photo may be called: TextCaps writes names without their ending."""
    return (image,) if PurePosixPath(image).suffix or "://" in image else (image, f"{image}.jpg")
