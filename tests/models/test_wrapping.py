"""Modules that are loaded already, and weights that are no numbers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from PIL import Image

import promptfuse as pf
from promptfuse.errors import ConfigError, ModelError
from promptfuse.models import load_model
from promptfuse.models.finite import check_finite

TEXTS = ["A brown dog runs.", "The green grass."]
AUTO = {
    "gpt2": transformers.AutoModelForCausalLM,
    "llama": transformers.AutoModelForCausalLM,
    "bert": transformers.AutoModelForSequenceClassification,
    "clip": transformers.AutoModel,
    "siglip": transformers.AutoModel,
    "dual": transformers.AutoModel,
    "t5-encoder": transformers.AutoModelForTextEncoding,
}


def outputs(model: Any) -> torch.Tensor:
    batch = model.encode(TEXTS)
    if isinstance(model, pf.models.CausalLM):
        return model.module(input_ids=batch.ids, attention_mask=batch.mask).logits
    return model.log_probabilities(batch) if model.kind == "classifier" else model.text_features(batch)


def given(folder: Path, name: str) -> dict[str, Any]:
    images = name in ("clip", "siglip", "dual")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder) if name == "siglip" else None
    return {
        "tokenizer": tokenizer or transformers.AutoTokenizer.from_pretrained(folder),
        "processor": transformers.AutoImageProcessor.from_pretrained(folder) if images else None,
    }


@pytest.mark.parametrize("name", AUTO)
def test_a_loaded_module_is_as_its_folder(name: str, checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint(name)
    named = load_model(folder)
    module = AUTO[name].from_pretrained(folder)
    wrapped = load_model(module, **given(folder, name))
    assert type(wrapped) is type(named)
    assert wrapped.module is module
    assert wrapped.name == str(folder)
    assert wrapped.fingerprint == named.fingerprint
    assert torch.equal(outputs(wrapped), outputs(named))
    if isinstance(wrapped, pf.models.ImageTextModel):
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8))
        assert torch.equal(wrapped.image_features([photo]), named.image_features([photo]))


def test_a_module_without_a_name_and_a_processor_for_both(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("clip")
    config = transformers.AutoConfig.from_pretrained(folder)
    config._name_or_path = ""
    parts = given(folder, "clip")
    both = transformers.CLIPProcessor(parts["processor"], parts["tokenizer"])
    wrapped = load_model(transformers.CLIPModel(config), processor=both, dtype=torch.bfloat16)
    assert wrapped.name == "CLIPModel"
    assert wrapped.tokenizer is both.tokenizer
    assert wrapped.processor is both.image_processor
    assert {parameter.dtype for parameter in wrapped.module.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_an_encoder_with_a_head_is_wrapped_without_it(name: str, checkpoint: Callable[[str], Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint(name))
    config = transformers.AutoConfig.from_pretrained(checkpoint(name))
    torch.manual_seed(0)
    masked = transformers.AutoModelForMaskedLM.from_config(config)
    bare = load_model(masked.base_model, tokenizer=tokenizer)
    wrapped = load_model(masked, tokenizer=tokenizer)
    assert wrapped.kind == "sentence-encoder"
    assert torch.equal(outputs(wrapped), outputs(bare))


def test_what_is_no_module(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("gpt2")
    module = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    clip = transformers.AutoModel.from_pretrained(checkpoint("clip"))
    words = transformers.AutoTokenizer.from_pretrained(checkpoint("clip"))
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(module.config)
    for arguments, options, parts in [
        ((module,), {}, ["GPT2LMHeadModel", "without its tokenizer", "tokenizer="]),
        ((module,), {"tokenizer": str(folder)}, ["str is not a tokenizer", "tokenizer="]),
        ((torch.nn.Linear(2, 2),), {"tokenizer": tokenizer}, ["Linear is not a model of transformers"]),
        ((5,), {}, ["int is not a model of transformers"]),
        ((None,), {}, ["NoneType is not a model of transformers"]),
        ((load_model(folder),), {}, [str(folder), "is already a promptfuse model"]),
        (
            (module.transformer,),
            {"tokenizer": tokenizer},
            ["GPT2Model is not a causal LM", "class for its task"],
        ),
        ((clip,), {"tokenizer": words}, ["image processor", "processor="]),
        ((clip.text_model,), {"tokenizer": words}, ["is not a causal LM"]),
        ((empty,), {"tokenizer": tokenizer}, ["has no values", "load the weights first"]),
    ]:
        with pytest.raises(ModelError) as caught:
            load_model(*arguments, **options)
        assert "\n" not in str(caught.value)
        for part in parts:
            assert part in str(caught.value), str(caught.value)
    with pytest.raises(ConfigError, match="a model given by name has its own tokenizer"):
        load_model(folder, tokenizer=tokenizer)


def test_a_search_with_wrapped_modules(checkpoint: Callable[[str], Path]) -> None:
    lm = load_model(
        transformers.AutoModelForCausalLM.from_pretrained(checkpoint("gpt2")),
        **given(checkpoint("gpt2"), "gpt2"),
    )
    named = load_model(checkpoint("gpt2"))
    found = [
        pf.optimize(pf.Objective(pf.Fluency(one)), pf.AutoDAN(candidates=4), steps=2) for one in (lm, named)
    ]
    assert (found[0].text, found[0].value) == (found[1].text, found[1].value)


# ------------------------------------------------------------------------------- weights that are no numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["gpt2", "bert", "clip", "siglip"])
def test_weights_that_are_no_numbers(
    name: str, value: float, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint(name), tmp_path / name))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    key = next(key for key in sorted(weights, reverse=True) if weights[key].ndim == 2)
    weights[key][0, 0] = value
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    assert key.rsplit(".", 2)[-2] in message
    assert "NaN" in message or "infinity" in message


def test_what_overflows_in_a_narrow_type_is_told_as_such(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint("gpt2"), tmp_path / "gpt2"))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["transformer.h.0.mlp.c_fc.weight"][0] = 1e5
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_model(folder)
    with pytest.raises(ModelError, match=r"h\.0\.mlp\.c_fc\.weight hold infinity.*another dtype"):
        load_model(folder, dtype=torch.float16)


def test_large_weights_are_no_infinite_ones() -> None:
    layer = torch.nn.Linear(64, 64)
    layer.weight.data.fill_(3e38)
    layer.register_buffer("mask", torch.full((4,), -torch.inf))
    check_finite(layer, "large")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16])
def test_narrow_types(dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(8, 8)
    layer.weight = torch.nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)
    check_finite(layer, "narrow")
    spoilt = torch.full((8, 8), torch.nan).to(dtype)
    layer.weight = torch.nn.Parameter(spoilt, requires_grad=False)
    with pytest.raises(ModelError, match="weight hold NaN"):
        check_finite(layer, "narrow")


def test_looking_at_the_weights_takes_next_to_no_time() -> None:
    layer = torch.nn.Linear(4096, 4096)
    product = torch.randn(64, 4096)
    check_finite(layer, "warm")
    start = time.perf_counter()
    check_finite(layer, "large")
    looked = time.perf_counter() - start
    start = time.perf_counter()
    layer(product)
    assert looked < 5 * (time.perf_counter() - start) + 0.05
