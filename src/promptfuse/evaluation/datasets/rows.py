"""What rows of data sets are made of, as pydantic models, and one line for whatever is wrong in one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from promptfuse.errors import ConfigError

IMAGE_COLUMNS = (
    *("image", "file", "filename", "file_name", "path", "image_name", "image_path", "image_file"),
    *("image_file_name", "image_filename", "img", "img_path", "filepath", "file_path", "url", "image_url"),
)
"""Columns that name the photo, the first that has a value; addresses come last."""

ID_COLUMNS = ("image_id", "id")
"""Where a table has both, ``id`` is that of the caption, as in COCO's annotations."""

SPLIT_COLUMNS = ("split", "set_name")
LABEL_COLUMNS = ("label", "sentiment", "class")

TEXT_COLUMNS = (
    *("caption", "reference", "comment", "raw", "text", "sentence", "description", "caption_str"),
    *("image_caption", "alt_text"),
)
"""Fields with one caption."""

FLAGS = ("is_rejected", "is_precanned")
"""VizWiz-Captions: spam, and the offered text for photos on which nothing can be seen. Its own evaluation
leaves both out."""

_MISSING = ("missing", "too_short", "string_too_short")
"""What pydantic calls a field that is not there or empty."""

T = TypeVar("T")


def _as_name(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # Spreadsheets and data frames write ids so.
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"expected a text or a whole number, found {shown(value)}")
    return _as_unicode(str(value).strip())


def _as_caption(value: Any) -> str:
    if value is None or value != value:  # Nothing, as JSON and as pandas write it.
        return ""
    if not isinstance(value, str):
        raise ValueError(f"expected a caption in quotes, found {shown(value)}")
    return _as_unicode(value)


def _as_unicode(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{text!r:.60} is not valid Unicode; correct it") from None
    return text


def is_set(value: Any) -> bool:
    """Whether a mark is set; a CSV file has it as a word, and data frames as a fraction or NaN."""
    if isinstance(value, list):
        return False  # One mark for each of several captions.
    if isinstance(value, str):
        value = value.strip().lower()
        if value in ("true", "yes", "t", "y"):
            return True
        try:
            value = float(value)
        except ValueError:
            return False
    return bool(value) and not (isinstance(value, float) and math.isnan(value))


Name = Annotated[str, BeforeValidator(_as_name)]
"""A name, id or split: a text without blanks around it, or a whole number."""
Given = Annotated[Name, Field(min_length=1)]
Caption = Annotated[str, BeforeValidator(_as_caption)]
Flag = Annotated[bool, BeforeValidator(is_set)]


class Marks(BaseModel):
    """What a data set says against a caption."""

    is_rejected: Flag = False
    is_precanned: Flag = False


class Entry(Marks):
    """One of several captions: a text, or fields of which one is the text, as Karpathy's ``sentences``."""

    text: Caption = Field("", validation_alias=AliasChoices("raw", *TEXT_COLUMNS))

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {"raw": _as_caption(value)}
        given = {name: one for name, one in value.items() if one is not None}
        if given.keys().isdisjoint(TEXT_COLUMNS):
            if isinstance(words := value.get("tokens"), list):
                return {**given, "raw": " ".join(map(_as_caption, words))}
            if value and value.keys().isdisjoint(TEXT_COLUMNS):
                raise ValueError(f"no caption in {shown(value)}; call it 'raw' or 'caption'")
        return given


class CocoImage(BaseModel):
    """A photo of COCO's."""

    id: Given
    file_name: Given


class CocoAnnotation(Marks):
    """A caption of COCO's."""

    caption: Caption
    image_id: Given


class KarpathyImage(BaseModel):
    """A photo of Karpathy's; its captions may have several names."""

    filename: Given
    filepath: Name = ""
    cocoid: Name = ""
    split: Name = ""


class _Row(BaseModel):
    """A row of which the first of several columns for one thing that has a value counts."""

    @model_validator(mode="before")
    @classmethod
    def _with_values(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if value not in (None, "")}


class TableRow(_Row):
    """A photo in a table."""

    image: Name = Field("", validation_alias=AliasChoices(*IMAGE_COLUMNS))
    id: Name = Field("", validation_alias=AliasChoices(*ID_COLUMNS))
    split: Name = Field("", validation_alias=AliasChoices(*SPLIT_COLUMNS))


class IdRow(_Row):
    """A row about a photo, of which the id is enough."""

    id: Given = Field(validation_alias=AliasChoices(*ID_COLUMNS, *IMAGE_COLUMNS))


class LabelRow(_Row):
    """A row with the label of a text."""

    label: Name = Field("", validation_alias=AliasChoices(*LABEL_COLUMNS))
    split: Name = Field("", validation_alias=AliasChoices(*SPLIT_COLUMNS))


_CAPTION = TypeAdapter[str](Caption)
_NAME = TypeAdapter[str](Name)


def parse(validate: Callable[[Any], T], value: Any, place: str, if_missing: str = "add it") -> T:
    """A value as a model has it.

    Args:
        validate: of the model or type.
        value: what the file has.
        place: where the file has it, for messages.
        if_missing: the remedy for a field that is missing.

    Raises:
        ConfigError: if it is not as it should be; one line with the place, the field and the remedy.
    """
    try:
        return validate(value)
    except ValidationError as error:
        first = error.errors()[0]
    where = place
    for part in first["loc"]:
        if isinstance(part, int):
            where += f"[{part}]"
        elif first["type"] not in _MISSING:
            where = at(where, part)
    if first["type"] in _MISSING:
        raise ConfigError(f"{where}: the field {first['loc'][-1]!r} is missing; {if_missing}")
    if "error" in (context := first.get("ctx", {})):
        raise ConfigError(f"{where}: {context['error']}")
    if first["type"] in ("model_type", "dict_type"):
        as_fields(first["input"], where)
    raise ConfigError(f"{where}: {first['msg'].lower()}, found {shown(first['input'])}")


def at(place: str, field: str) -> str:
    """The place of a field, as messages write it: ``images[3].id``, but ``line 3, id``."""
    return f"{place}{'.' if place.endswith(']') else ', '}{field}"


def parse_caption(value: Any, place: str) -> str:
    """A caption as it stands; nothing is empty.

    Raises:
        ConfigError: if it is not a text.
    """
    return parse(_CAPTION.validate_python, value, place)


def parse_name(value: Any, place: str) -> str:
    """A name, id or split: texts are stripped, whole numbers written out, nothing is empty.

    Raises:
        ConfigError: if it is of another type.
    """
    return parse(_NAME.validate_python, value, place)


def as_fields(value: Any, place: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ConfigError: if it is something else.
    """
    if not isinstance(value, dict):
        raise ConfigError(f'{place}: expected fields, {{"name": value}}, found {shown(value)}')
    return value


def as_list(value: Any, place: str) -> list[Any]:
    """A JSON list.

    Raises:
        ConfigError: if it is something else.
    """
    if not isinstance(value, list):
        raise ConfigError(f"{place}: expected a list, found {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value as JSON, short enough for a message."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
