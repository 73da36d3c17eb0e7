"""Checks of a configuration that need its models and photos, but no model's weights."""

from __future__ import annotations

from promptfuse._utils.yaml_files import nearest
from promptfuse.config.base import at
from promptfuse.config.run import SearchConfig
from promptfuse.errors import ConfigError, ModelError
from promptfuse.models import load_image
from promptfuse.models.info import ModelInfo, read_model_info
from promptfuse.search import Chain
from promptfuse.search.methods.context import remedy_for, shortened


def check_config(config: SearchConfig, *, allow_code: bool = False) -> dict[str, ModelInfo]:
    """Check that all models, labels, photos and functions are there and fit their terms.

    Args:
        config: the configuration.
        allow_code: whether functions of the user's modules may be imported.

    Returns:
        What the models are, by the configuration's names.

    Raises:
        ConfigError, ModelError, ImageError: for the first thing that is wrong, with its place.
    """
    config.require_allowed(allow_code)
    _check_rules(config)
    sketches = {}
    for name, model in config.used_models().items():
        with at(f"models.{name}"):
            sketches[name] = read_model_info(model.name, model.device or config.device)
    for name, term in config.terms.items():
        term.import_functions(name)
        for key, model_name in term.model_names().items():
            sketch, kinds = sketches[model_name], term.signature.model_kinds[key]
            if not issubclass(sketch.role, kinds):
                known = " or ".join(kind.kind for kind in kinds)
                raise ModelError(
                    f"terms.{name}: {term.kind} needs a model of kind {known}; "
                    f"{sketch.name} is of kind {sketch.role.kind}"
                )
        for key, model_key in term.signature.labels.items():
            sketch, label = sketches[getattr(term, model_key)], getattr(term, key)
            if not sketch.has_label(label):
                raise ConfigError(
                    f"terms.{name}.{key}: {sketch.name} has no label {label!r}; "
                    f"{nearest(label, sketch.labels)}"
                )
        for key in term.signature.photos:
            with at(f"terms.{name}.{key}"):
                for photo in getattr(term, key):
                    load_image(photo)
    return sketches


def _check_rules(config: SearchConfig) -> None:
    """Raise where what every text begins with breaks a rule, whatever a model makes of it."""
    rules, method = config.constraints.build(), config.method.build()
    while isinstance(method, Chain):  # Later methods continue from what the first has found.
        method = method.methods[0]
    for place, text in (("prefix", config.prefix.strip()), ("method.init", getattr(method, "init", None))):
        if text and (reason := rules.broken(text)) is not None:
            raise ConfigError(
                f"{place}: {shortened(text)} violates the constraints: {reason}; {remedy_for(text)}"
            )
