"""A whole configuration: one YAML file for everything that a search can be asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from promptfuse._utils.values import factor
from promptfuse._utils.yaml_files import change_value, dump_yaml, explain, nearest, read_yaml
from promptfuse.config.base import FilePath, Settings, as_problem, at
from promptfuse.config.settings import (
    ConstraintsSettings,
    MethodSettings,
    StoppingSettings,
    StrategySettings,
    default_method,
    default_strategy,
)
from promptfuse.config.terms import AnyTerm, ModelSettings
from promptfuse.errors import ConfigError
from promptfuse.models import CausalLM, Model
from promptfuse.objectives import Objective, TargetContinuation
from promptfuse.search import Callback, Search


def _name_alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class SearchConfig(Settings):
    """A search, as a YAML file describes it; ``docs/reference/yaml.md`` lists every key.

    Attributes:
        models: the models by names of the user's own; loaded once each, if a term uses them.
        terms: the terms of the objective by the names that results show.
        method: how texts are proposed.
        strategy: which texts a step starts from.
        constraints: rules for texts.
        stopping: when the search ends.
        prefix: what every text begins with.
        glue: whether the first new token may continue the prefix's last word.
        complete: whether a growing text must end before it may be returned.
        weights: ``given``, ``auto`` (terms on one scale), or factors on those by term, such as ``2x``.
        scalarisation: ``weighted`` or ``chebyshev``.
        seed: of whatever is drawn.
        batch_size: the most rows in one forward pass; None for as many as fit.
        device: where models go that name no device of their own.
        run_dir: the run folder; None for no files.
    """

    models: dict[str, Annotated[ModelSettings, BeforeValidator(_name_alone)]]
    terms: dict[str, AnyTerm]
    method: MethodSettings = Field(default_factory=default_method)
    strategy: StrategySettings = Field(default_factory=default_strategy)
    constraints: ConstraintsSettings = Field(default_factory=lambda: _no_settings("constraints"))
    stopping: StoppingSettings = Field(default_factory=lambda: _no_settings("stopping"))
    prefix: str = ""
    glue: bool = False
    complete: bool = True
    weights: Any = "given"
    scalarisation: Literal["weighted", "chebyshev"] = "weighted"
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(ge=1)] | None = None
    device: str = "cpu"
    run_dir: FilePath | None = None

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, weights: Any) -> Any:
        if weights in ("given", "auto"):
            return weights
        if isinstance(weights, str):
            raise ValueError(f"{weights!r} is unknown; {nearest(weights, ('given', 'auto'))}")
        numbers = weights.values() if isinstance(weights, dict) else (None,)
        if not all(isinstance(it, int | float | str) and not isinstance(it, bool) for it in numbers):
            raise ValueError(
                f"{weights!r:.60} are not weights; give given, auto, or a number for each of some terms"
            )
        return weights

    @model_validator(mode="after")
    def _fits_together(self) -> SearchConfig:
        if not self.terms:
            raise ValueError("terms: must have at least one, e.g. of the kind Fluency")
        for name, term in self.terms.items():
            for key, model in term.model_names().items():
                if model not in self.models:
                    raise ValueError(f"terms.{name}.{key}: no model {model!r}; {nearest(model, self.models)}")
        taken = [
            kind
            for term in self.terms.values()
            for kinds in term.signature.model_kinds.values()
            for kind in kinds
        ]
        if CausalLM not in taken and Model not in taken:
            raise ValueError(
                "terms: none has a language model, which proposes the words; add one of the kind Fluency"
            )
        if getattr(self.stopping, "early_stop", False) and not any(
            issubclass(term.signature.term, TargetContinuation) and getattr(term, "weight", 1) > 0
            for term in self.terms.values()
        ):
            raise ValueError(
                "stopping.early_stop: it needs a term with a target; add one of the kind TargetContinuation"
            )
        for name, number in (self.weights if isinstance(self.weights, dict) else {}).items():
            if name not in self.terms:
                raise ValueError(f"weights: no term {name!r}; {nearest(str(name), self.terms)}")
            with as_problem():
                factor(number, f"weights.{name}")
        return self

    def used_models(self) -> dict[str, ModelSettings]:
        """The models that terms use, in the terms' order."""
        names = [name for term in self.terms.values() for name in term.model_names().values()]
        return {name: self.models[name] for name in dict.fromkeys(names)}

    def photos(self) -> list[str]:
        """The photos of all terms: paths and addresses."""
        return list(dict.fromkeys(path for term in self.terms.values() for path in term.photo_paths()))

    def require_allowed(self, allow_code: bool) -> None:
        """Raise ``ConfigError`` if a term runs code of the user's and that is not allowed."""
        for name, term in self.terms.items():
            for key in () if allow_code else term.signature.functions:
                raise ConfigError(
                    f"terms.{name}: the function {getattr(term, key)} would run code; "
                    "add --allow-code if you trust it"
                )

    def objective(
        self, *, allow_code: bool = False, loading: Callable[[str], None] | None = None
    ) -> Objective:
        """The objective, with its models loaded.

        Args:
            allow_code: whether functions of the user's modules may be run.
            loading: called with the name of a model before it is loaded.

        Raises:
            ConfigError, ModelError, ImageError, TextError: if a model, photo or text cannot be used.
        """
        self.require_allowed(allow_code)
        loaded: dict[str, Model] = {}

        def load(name: str) -> Model:
            if name not in loaded:
                if loading is not None:
                    loading(name)
                with at(f"models.{name}"):
                    loaded[name] = self.models[name].load(self.device)
            return loaded[name]

        # All models first: a wrong one is not to be found out after minutes of photos.
        for name in self.used_models():
            load(name)
        terms = []
        for name, term in self.terms.items():
            with at(f"terms.{name}"):
                terms.append(term.build(name, load))
        return Objective(*terms)

    def search(
        self,
        *,
        allow_code: bool = False,
        loading: Callable[[str], None] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Search:
        """The search, ready to run.

        Args:
            allow_code: whether functions of the user's modules may be run.
            loading: called with the name of a model before it is loaded.
            callbacks: called with the search and the step after every step.

        Raises:
            ConfigError, ModelError, ImageError, TextError: if a model, photo or text cannot be used.
        """
        return Search(
            self.objective(allow_code=allow_code, loading=loading),
            self.method.build(),
            self.strategy.build(),
            prefix=self.prefix,
            glue=self.glue,
            complete=self.complete,
            stopping=self.stopping.build(),
            constraints=self.constraints.build(),
            weights=self.weights,
            scalarisation=self.scalarisation,
            seed=self.seed,
            batch_size=self.batch_size,
            callbacks=callbacks,
            run_dir=self.run_dir,
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields with their values, as YAML has them."""
        values: dict[str, Any] = self.model_dump(mode="json")
        return values

    def to_yaml(self) -> str:
        """All fields with their values, as YAML that is the same configuration."""
        return dump_yaml(self.to_dict())


def _no_settings(field: str) -> Any:
    """Constraints or stopping with their defaults."""
    annotation: Any = SearchConfig.model_fields[field].annotation
    return annotation()


def load_config(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> SearchConfig:
    """A configuration from a YAML file.

    Args:
        path: the file; paths in it are relative to its folder.
        changes: values that replace the file's, by dotted keys such as ``terms.image.weight``.

    Raises:
        ConfigError: if the file cannot be read or something in it is wrong.
    """
    path = Path(path)
    values = read_yaml(path, "models: {lm: mini-lm}")
    _spell_out(values)
    for key, value in (changes or {}).items():
        change_value(values, key, value)
    try:
        return SearchConfig.model_validate(values, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, SearchConfig)}") from None


def _spell_out(values: dict[str, Any]) -> None:
    """Write names that stand alone as fields, in place, so that changes find a place beside them."""
    for key in ("method", "strategy"):
        if isinstance(values.get(key), str):
            values[key] = {"kind": values[key]}
    models = values.get("models")
    if isinstance(models, dict):
        models.update({name: _name_alone(model) for name, model in models.items()})
