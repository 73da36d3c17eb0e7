"""Presets: which models, which weights and how hard to search."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptfuse.errors import ConfigError

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Preset(BaseModel):
    """Settings of the caption task.

    Attributes:
        lm: the causal language model, an id, folder or embedded name.
        image_text: the image-text model.
        sentiment: the sentiment classifier, loaded only if a sentiment is asked for.
        labels: the classifier's label for ``positive`` and ``negative``.
        fluency_weight: weight of the mean NLL per token.
        image_weight: weight of 1 - cosine similarity.
        sentiment_weight: weight of the label's NLL.
        prefix: what every caption begins with; it is part of the text that the models judge.
        steps: the most tokens that are appended.
        beams: width of the beam.
        candidates: exact evaluations per beam and step.
        batch: rows in one forward pass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lm: str
    image_text: str
    sentiment: str
    labels: dict[str, str] = {"positive": "positive", "negative": "negative"}
    fluency_weight: Positive = 1.0
    image_weight: Positive = 22.0
    sentiment_weight: Positive = 2.0
    prefix: str = ""
    steps: Count = 16
    beams: Count = 4
    candidates: Count = 256
    batch: Count = 256


PRESETS = {
    "mini": Preset(
        lm="mini-lm",
        image_text="mini-clip",
        sentiment="mini-tone",
        steps=20,
        beams=4,
        candidates=16,
    ),
    # The paper's image-captioning setting: Williams & Kolter (2024), section 4.
    "paper": Preset(
        lm="openai-community/gpt2-medium",
        image_text="openai/clip-vit-base-patch32",
        sentiment="cardiffnlp/twitter-roberta-base-sentiment-latest",
        prefix="An image of",
        steps=16,
        beams=4,
        candidates=256,
    ),
}
"""The named presets."""


def load_preset(name: str) -> Preset:
    """A preset by name, or from a YAML file with the fields of ``Preset``.

    Raises:
        ConfigError: if there is no such preset or file, or a field is wrong.
    """
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = ", ".join(PRESETS)
        raise ConfigError(f"no preset {name!r}; choose from: {known}, or give a .yaml file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"{path}: no such file; check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected fields such as 'lm: gpt2', found {type(values).__name__}")
    base = values.pop("base", None)
    if base is not None:
        values = {**load_preset(str(base)).model_dump(), **values}
    try:
        return Preset.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """The first problem, in one line, with the nearest right key for a wrong one."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Preset.model_fields, n=1)
        known = f"did you mean {near[0]!r}?" if near else "choose from: " + ", ".join(Preset.model_fields)
        return f"no field {key!r}; {known}"
    if first["type"] == "missing":
        return f"the field {key!r} is missing; add it, or 'base: mini' to start from a preset"
    return f"{key}: {first['msg'].lower()}"
