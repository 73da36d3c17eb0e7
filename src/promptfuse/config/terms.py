"""Terms and their models in a configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator

from promptfuse._utils.paths import expand_user
from promptfuse.config.base import PhotoPaths, Settings, Texts, as_problem
from promptfuse.errors import ConfigError
from promptfuse.models import (
    EMBEDDED,
    CausalLM,
    ImageTextModel,
    Model,
    SentenceEncoder,
    SequenceClassifier,
    load_model,
)
from promptfuse.models.context import read_context
from promptfuse.objectives import (
    BlackBox,
    ClassProbability,
    Fluency,
    ImageSimilarity,
    TargetContinuation,
    Term,
    TextSimilarity,
    ZeroShotClass,
    ZeroShotPrompt,
)
from promptfuse.objectives.base import MAX_WEIGHT
from promptfuse.objectives.checks import read_texts
from promptfuse.objectives.classes import _check_labels, _fill


class ModelSettings(Settings):
    """A model.

    Attributes:
        name: a Hugging Face id, an embedded model's name, or a folder, which is taken from the file's own
            folder; with ``./`` in front it can only be a folder.
        device: where it goes, if not to the device of all.
        dtype: of its parameters.
        start: what stands before every text of a causal language model; see ``CausalLM``.
    """

    name: str
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    start: str = "auto"

    @field_validator("name")
    @classmethod
    def _beside_the_file(cls, name: str, info: ValidationInfo) -> str:
        folder = (info.context or {}).get("folder")
        if folder is None or name in EMBEDDED:
            return name
        path = Path(folder, expand_user(name))
        return str(path.resolve()) if name.startswith((".", "/", "~")) or path.is_dir() else name

    def load(self, device: str) -> Model:
        """The model, on its own device or the one given."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return load_model(self.name, device=self.device or device, dtype=dtype, start=self.start)


class TermSettings(Settings):
    """What all terms have.

    Attributes:
        weight: factor in the sum; negative to stay away.
        prefix: put before every text that the term reads.
        suffix: put behind it.
    """

    term: ClassVar[type[Term]]
    kinds: ClassVar[tuple[type[Model], ...]] = ()
    """The models that the term takes."""

    weight: float = 1.0
    prefix: str = ""
    suffix: str = ""

    @field_validator("weight")
    @classmethod
    def _can_weigh(cls, weight: float) -> float:
        if not 0 < abs(weight) <= MAX_WEIGHT:
            raise ValueError(f"{weight:g} cannot weigh; give another number than 0, at most {MAX_WEIGHT:g}")
        return weight

    def build(self, name: str, load: Callable[[str], Model]) -> Term:
        """The term.

        Args:
            name: its key in results.
            load: gives the model with a name of the configuration.
        """
        values = {field: getattr(self, field) for field in type(self).model_fields if field != "kind"}
        if "model" in values:
            values["model"] = load(values["model"])
        return self.term(**values, name=name)


class FluencySettings(TermSettings):
    """See ``Fluency``.

    Attributes:
        context: a text, or ``@FILE`` with the text, relative to the configuration's folder.
    """

    term = Fluency
    kinds = (CausalLM,)
    kind: Literal["Fluency"]
    model: str
    length_exponent: float = Field(default=1.0, ge=0, le=1)
    context: str = ""

    @field_validator("context")
    @classmethod
    def _from_its_file(cls, context: str, info: ValidationInfo) -> str:
        folder = (info.context or {}).get("folder")
        with as_problem():
            return read_context(context, None if folder is None else Path(folder))

    @model_validator(mode="after")
    def _one_before(self) -> FluencySettings:
        if self.prefix and self.context:
            raise ValueError("a prefix and a context: only one can stand before the text; put them into one")
        return self


class ImageSimilaritySettings(TermSettings):
    """See ``ImageSimilarity``."""

    term = ImageSimilarity
    kinds = (ImageTextModel,)
    kind: Literal["ImageSimilarity"]
    model: str
    image: PhotoPaths
    weight: float = 22.0


class TextSimilaritySettings(TermSettings):
    """See ``TextSimilarity``."""

    term = TextSimilarity
    kinds = (SentenceEncoder, ImageTextModel)
    kind: Literal["TextSimilarity"]
    model: str
    text: Texts

    @field_validator("text")
    @classmethod
    def _not_blank(cls, texts: list[str]) -> list[str]:
        with as_problem():
            return read_texts(texts, "text")


class ClassProbabilitySettings(TermSettings):
    """See ``ClassProbability``."""

    term = ClassProbability
    kinds = (SequenceClassifier,)
    kind: Literal["ClassProbability"]
    model: str
    label: str
    weight: float = 2.0


class TargetContinuationSettings(TermSettings):
    """See ``TargetContinuation``."""

    term = TargetContinuation
    kinds = (CausalLM,)
    kind: Literal["TargetContinuation"]
    model: str
    target: Texts

    @field_validator("target")
    @classmethod
    def _not_blank(cls, texts: list[str]) -> list[str]:
        with as_problem():
            return read_texts(texts, "target")


class LabelledSettings(TermSettings):
    """A label among others, written into a template."""

    label: str
    labels: list[str]
    weight: float = 2.0
    template: str

    @model_validator(mode="after")
    def _labels_differ(self) -> LabelledSettings:
        with as_problem():
            _check_labels(self.label, self.labels)
            _fill(self.template, self.labels)
        return self


class ZeroShotClassSettings(LabelledSettings):
    """See ``ZeroShotClass``."""

    term = ZeroShotClass
    kinds = (ImageTextModel,)
    kind: Literal["ZeroShotClass"]
    model: str
    template: str = "a photo of {}"


class ZeroShotPromptSettings(LabelledSettings):
    """See ``ZeroShotPrompt``."""

    term = ZeroShotPrompt
    kinds = (ImageTextModel,)
    kind: Literal["ZeroShotPrompt"]
    model: str
    image: PhotoPaths
    template: str = " {}"


class BlackBoxSettings(TermSettings):
    """See ``BlackBox``; code of the user's, which runs only if it is allowed to.

    Attributes:
        function: ``module:function``; the module is looked for beside the file first.
    """

    term = BlackBox
    kind: Literal["BlackBox"]
    function: str
    batched: bool = False
    _folder: str | None = None

    def model_post_init(self, context: Any) -> None:
        """Keep the file's folder."""
        folder = (context or {}).get("folder")
        self._folder = None if folder is None else str(folder)

    @field_validator("function")
    @classmethod
    def _two_names(cls, function: str) -> str:
        module, colon, name = function.partition(":")
        if not (colon and name.isidentifier() and all(map(str.isidentifier, module.split(".")))):
            raise ValueError(f"{function!r} names no function; write module:function")
        return function

    def build(self, name: str, load: Callable[[str], Model]) -> Term:
        """See ``TermSettings.build``."""
        del load
        values = self.model_dump(exclude={"kind", "function"})
        return BlackBox(self.import_function(name), **values, name=name)

    def import_function(self, name: str) -> Callable[[Any], Any]:
        """The function.

        Args:
            name: of the term, for the error message.

        Raises:
            ConfigError: if there is no such module or function.
        """
        module, _, function = self.function.partition(":")
        path = list(sys.path)
        if self._folder is not None:
            sys.path.insert(0, self._folder)
        try:
            found: Callable[[Any], Any] = getattr(import_module(module), function)
        except Exception as error:  # Whatever the user's module raises when it is read.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"terms.{name}.function: {self.function} cannot be imported ({reason}); check the names"
            ) from None
        finally:
            sys.path[:] = path
        return found


AnyTerm = Annotated[
    FluencySettings
    | ImageSimilaritySettings
    | TextSimilaritySettings
    | ClassProbabilitySettings
    | TargetContinuationSettings
    | ZeroShotClassSettings
    | ZeroShotPromptSettings
    | BlackBoxSettings,
    Field(discriminator="kind"),
]
"""Any term."""
