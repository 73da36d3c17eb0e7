"""Folders of diffusion pipelines: what is refused, in one line, whether diffusers is installed or not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from promptfuse.errors import ConfigError, ModelError
from promptfuse.models import DiffusionModel, load_model
from promptfuse.models.info import read_model_info
from tests.conftest import quiet
from tests.diffusion_pipelines import write

REASON = "pip install 'promptfuse[diffusion]'"

INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a pipeline's, with nothing in its files."""
    for part in ("scheduler", "tokenizer", *WEIGHTS):
        (tmp_path / "sd" / part).mkdir(parents=True)
    for part, file in WEIGHTS.items():
        (tmp_path / "sd" / part / file).touch()
    (tmp_path / "sd" / "model_index.json").write_text(json.dumps(INDEX))
    return tmp_path / "sd"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline of Stable Diffusion XL."""
    pytest.importorskip("diffusers", reason=REASON)
    with quiet():
        return write("sdxl", tmp_path_factory.mktemp("pipeline") / "sdxl")


def refused(folder: Path, *parts: str, load: Callable[[str], Any] = load_model) -> None:
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for part in parts:
        assert part in message


def change(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def test_a_pipeline_needs_diffusers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    refused(folder, f"{folder}: is a diffusion pipeline, which needs diffusers; {REASON}")
    assert read_model_info(str(folder)).to_dict() == {
        "name": str(folder), "kind": "diffusion", "where": "folder",
    }  # fmt: skip


@pytest.mark.parametrize("load", [load_model, read_model_info])
def test_pipelines_of_other_kinds(folder: Path, load: Callable[[str], Any]) -> None:
    both = "give one of class StableDiffusionPipeline or StableDiffusionXLPipeline"
    for kind in ("FluxPipeline", "StableDiffusionInpaintPipeline"):
        change(folder, "model_index.json", _class_name=kind)
        refused(folder, f"a pipeline of class {kind} is not supported; {both}", load=load)
    change(folder, "model_index.json", _class_name=...)
    refused(folder, "a pipeline of class None is not supported", load=load)
    for text in ("[]", "{", ""):
        (folder / "model_index.json").write_text(text)
        refused(folder, "model_index.json", load=load)


def test_parts_of_other_kinds(folder: Path) -> None:
    change(folder, "model_index.json", unet=["my_unet", "MyUNet"])
    refused(folder, "its unet is of class MyUNet (my_unet)", "UNet2DConditionModel")
    change(folder, "model_index.json", unet=INDEX["unet"], text_encoder=[None, None])
    refused(folder, "its text_encoder is of class None", "CLIPTextModel")
    change(folder, "model_index.json", text_encoder=INDEX["text_encoder"])
    change(folder, "model_index.json", _class_name="StableDiffusionXLPipeline")
    refused(folder, "its text_encoder_2 is of class None")


def test_files_that_are_not_there(folder: Path) -> None:
    for part, file in WEIGHTS.items():
        (folder / part / file).rename(folder / part / f"{Path(file).stem}.bin")
        refused(folder, f"no {file} in {part}; save the pipeline with safe_serialization=True")
        (folder / part / f"{Path(file).stem}.bin").rename(folder / part / file)
    (folder / "tokenizer").rmdir()
    refused(folder, "has no folder tokenizer")
    (folder / "tokenizer").mkdir()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "vae" / WEIGHTS["vae"]).write_text(pointer)
    refused(folder, str(folder / "vae" / WEIGHTS["vae"]), "git lfs pull")


def test_what_loads(real: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_model(real)
    assert isinstance(model, DiffusionModel)
    assert capfd.readouterr() == ("", "")
    assert model.embedding_table.shape == (len(model.tokenizer), 36)
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert not model.module.training
    assert model.identity == load_model(real).identity
    with pytest.raises(ConfigError, match=r"start 'bos': .* is not a causal LM"):
        load_model(real, start="bos")


def test_damaged_parts(real: Path, tmp_path: Path) -> None:
    def copy() -> Path:
        shutil.rmtree(tmp_path / "sd", ignore_errors=True)
        return Path(shutil.copytree(real, tmp_path / "sd"))

    damaged = copy()
    weights = damaged / "unet" / WEIGHTS["unet"]
    tensors = safetensors.torch.load_file(weights)
    first = min(tensors)
    safetensors.torch.save_file({key: tensors[key] for key in tensors if key != first}, weights)
    refused(damaged, "the files of unet lack 1 parameters", first)
    safetensors.torch.save_file(tensors | {first: tensors[first] * torch.nan}, weights)
    refused(damaged, "the weights of unet.", "hold NaN")
    weights.write_bytes(b"nothing")
    refused(damaged, "the unet cannot be loaded")
    damaged = copy()
    change(damaged, "scheduler/scheduler_config.json", prediction_type="flow")
    refused(damaged, "its scheduler (EulerDiscreteScheduler, flow) is not supported")
    change(damaged, "scheduler/scheduler_config.json", prediction_type="epsilon", beta_schedule=...)
    refused(damaged, "its scheduler (EulerDiscreteScheduler, epsilon) is not supported")
    damaged = copy()
    tokenizer = damaged / "tokenizer_2" / "tokenizer.json"
    values = json.loads(tokenizer.read_text())
    values["model"]["merges"] = values["model"]["merges"][:-1]
    tokenizer.write_text(json.dumps(values))
    refused(damaged, "its two tokenizers differ")
    damaged = copy()
    change(damaged, "unet/config.json", in_channels=9)
    refused(damaged, "unet")


def test_parts_that_do_not_fit(real: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    with quiet():
        pipeline = StableDiffusionXLPipeline.from_pretrained(real)
    unet = pipeline.unet.config
    for name, wrong, message in (
        ("in_channels", 9, "its UNet takes 9 channels, its VAE gives 4"),
        ("cross_attention_dim", 16, "its UNet reads 16 numbers a token, its text encoders give 36"),
        ("projection_class_embeddings_input_dim", 52, "is it a refiner?"),
    ):
        before = unet[name]
        pipeline.unet.register_to_config(**{name: wrong})
        with pytest.raises(ModelError, match=message):
            load_model(pipeline)
        pipeline.unet.register_to_config(**{name: before})
    with pytest.raises(ConfigError, match="a pipeline has all that it needs; leave tokenizer"):
        load_model(pipeline, tokenizer=pipeline.tokenizer)
    pipeline.text_encoder = None
    with pytest.raises(ModelError, match="the pipeline has no text_encoder; load it with all its parts"):
        load_model(pipeline)

    class DiffusionPipeline: ...

    class FluxPipeline(DiffusionPipeline): ...

    with pytest.raises(ModelError, match="FluxPipeline: is not supported; give a pipeline of class Stable"):
        load_model(FluxPipeline())


@pytest.mark.slow
def test_an_id_of_the_hub_that_is_in_the_cache(real: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--sd"
    shutil.copytree(real, repository / "snapshots" / "1")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1")
    code = f"""
import promptfuse as pf
from promptfuse.models.info import place_of, read_model_info
assert place_of("org/sd")[0] == "cached"
assert read_model_info("org/sd").to_dict() == {{"name": "org/sd", "kind": "diffusion", "where": "hub"}}
model = pf.load_model("org/sd")
assert model.name == "org/sd"
assert model.identity == pf.load_model({str(real)!r}).identity
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
