"""Loading the parts of a diffusion pipeline, or taking them from one that is loaded already."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers

from promptfuse.errors import ModelError
from promptfuse.models.diffusion import DiffusionModel, DiffusionParts
from promptfuse.models.diffusion_files import PIPELINES, PipelineFiles, fetch, read_index
from promptfuse.models.from_files import clear_errors, load_module, load_tokenizer
from promptfuse.models.identity import Listing, Weights, list_files

_EXTRA = "pip install 'promptfuse[diffusion]'"

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What a UNet may predict: the noise, the velocity (Salimans and Ho, 2022), or the photo's latents."""


def is_pipeline(value: Any) -> bool:
    """Whether something is a pipeline of diffusers that is loaded already."""
    return any(kind.__name__ == "DiffusionPipeline" for kind in type(value).__mro__)


def load_pipeline(source: str, name: str, device: str | torch.device, dtype: torch.dtype) -> DiffusionModel:
    """A pipeline from a folder or the hub; safetensors alone are read, and no code of the repository runs.

    Args:
        source: its folder or Hugging Face id.
        name: what errors call it.
        device: where it goes.
        dtype: of the parameters; the VAE's is at least float32.

    Raises:
        ModelError: if diffusers is not installed, or the pipeline is of a class that is not supported or
            cannot be read.
    """
    files = read_index(source, name)
    diffusers = _diffusers(name)
    with clear_errors(name, "pipeline"):
        files = fetch(files)
    listing = _list_parts(files)
    wide = torch.promote_types(dtype, torch.float32)  # SDXL's overflows in float16.
    with _quiet(diffusers):
        tokenizers = []
        for part in files.tokenizers:
            with clear_errors(name, part):
                tokenizers.append(load_tokenizer(files.source, name, {"subfolder": part}))
        encoders = []
        for part, kind in files.encoders.items():
            with clear_errors(name, part):
                options = {"subfolder": part, "use_safetensors": True}
                encoders.append(load_module(getattr(transformers, kind), files.source, name, dtype, options))
        unet = _load_part(diffusers.UNet2DConditionModel, files, "unet", dtype)
        vae = _load_part(diffusers.AutoencoderKL, files, "vae", wide)
        with clear_errors(name, "scheduler"):
            config = diffusers.DDPMScheduler.load_config(files.source, subfolder="scheduler")
        scheduler = _schedule(diffusers, config, name)
    parts = DiffusionParts(tuple(encoders), tuple(tokenizers), unet, vae, scheduler)
    made = DiffusionModel(_moved(parts, device, None), name)
    made.weights = Weights(made.module, listing)
    return made


def wrap_pipeline(
    pipeline: Any, device: str | torch.device | None, dtype: torch.dtype | None
) -> DiffusionModel:
    """A pipeline of diffusers that is loaded already; its parts are shared, and take no gradients any more.

    Args:
        pipeline: a ``StableDiffusionPipeline`` or ``StableDiffusionXLPipeline``.
        device: where it goes; None to leave it where it is.
        dtype: of the parameters; None to leave them as they are.

    Raises:
        ModelError: if it is of another class, lacks a part, or its scheduler is not supported.
    """
    kind = type(pipeline).__name__
    if kind not in PIPELINES:
        raise ModelError(f"{kind}: is not supported; give a pipeline of class {' or '.join(PIPELINES)}")
    name = str(getattr(pipeline, "name_or_path", "") or kind)
    numbers = ("", "_2")[: PIPELINES[kind]]
    wanted = [f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in numbers]
    for part in (*wanted, "unet", "vae", "scheduler"):
        if getattr(pipeline, part, None) is None:
            raise ModelError(f"{name}: the pipeline has no {part}; load it with all its parts")
    diffusers = _diffusers(name)
    encoders = tuple(getattr(pipeline, f"text_encoder{number}") for number in numbers)
    tokenizers = tuple(getattr(pipeline, f"tokenizer{number}") for number in numbers)
    with _quiet(diffusers):
        scheduler = _schedule(diffusers, dict(pipeline.scheduler.config), name)
        parts = DiffusionParts(encoders, tokenizers, pipeline.unet, pipeline.vae, scheduler)
        return DiffusionModel(_moved(parts, device, dtype), name)


def _diffusers(name: str) -> ModuleType:
    try:
        return import_module("diffusers")
    except ImportError:
        raise ModelError(f"{name}: is a diffusion pipeline, which needs diffusers; {_EXTRA}") from None


def _moved(
    parts: DiffusionParts, device: str | torch.device | None, dtype: torch.dtype | None
) -> DiffusionParts:
    own: dict[str, Any] = {} if device is None else {"device": device}
    wide = own if dtype is None else own | {"dtype": torch.promote_types(dtype, torch.float32)}
    own = own if dtype is None else own | {"dtype": dtype}
    encoders = tuple(encoder.to(**own) for encoder in parts.encoders)
    return replace(parts, encoders=encoders, unet=parts.unet.to(**own), vae=parts.vae.to(**wide))


def _load_part(role: Any, files: PipelineFiles, part: str, dtype: torch.dtype) -> Any:
    """A module of diffusers with all its parameters from the files."""
    with clear_errors(files.name, part):
        module, info = role.from_pretrained(
            files.source,
            subfolder=part,
            torch_dtype=dtype,
            use_safetensors=True,
            low_cpu_mem_usage=importlib.util.find_spec("accelerate") is not None,
            output_loading_info=True,
        )
        if missing := sorted(info["missing_keys"]):
            raise ModelError(
                f"{files.name}: the files of {part} lack {len(missing)} parameters (the first is "
                f"{missing[0]}); use an undamaged copy of the weights"
            )
    return module


def _schedule(diffusers: ModuleType, config: Mapping[str, Any], name: str) -> Any:
    """The noise schedule of a pipeline's scheduler, whatever its sampler."""
    kind = str(config.get("_class_name", "?"))
    prediction = config.get("prediction_type", "epsilon")
    if "beta_schedule" not in config or prediction not in PREDICTIONS:
        raise ModelError(
            f"{name}: its scheduler ({kind}, {prediction}) is not supported; give a pipeline with a schedule "
            f"of betas that predicts {', '.join(PREDICTIONS)}"
        )
    with clear_errors(name, "scheduler"):
        return diffusers.DDPMScheduler.from_config(dict(config))


def _list_parts(files: PipelineFiles) -> Listing | None:
    """The files of weights, which tell whether they have changed; None if there are too many."""
    found = {part: list_files(str(Path(files.source) / part)) for part in files.weights}
    names, settled = [], True
    for part, listing in found.items():
        if listing is None:
            return None
        names += [(f"{part}/{file}", *seen) for file, *seen in listing.files]
        settled = settled and listing.settled
    return Listing(Path(files.source).resolve(), tuple(sorted(names)), settled)  # type: ignore[arg-type]


@contextmanager
def _quiet(diffusers: ModuleType) -> Iterator[None]:
    """Keep diffusers from writing advice into the caller's terminal."""
    logging: Any = diffusers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
