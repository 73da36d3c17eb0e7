"""Adapters of PEFT's, beside a checkpoint or in its place: merged if peft is there, else refused by name."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from promptfuse.errors import ModelError
from promptfuse.models import load_model
from promptfuse.models.info import read_model_info

HAS_PEFT = importlib.util.find_spec("peft") is not None
needs_peft = pytest.mark.skipif(not HAS_PEFT, reason="peft is not installed")
without_peft = pytest.mark.skipif(HAS_PEFT, reason="peft is installed")

TEXTS = ["A brown dog runs.", "The green grass."]
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["c_attn"], "fan_in_fan_out": True}


def write_lora(folder: Path, base: str | Path | None, **changes: Any) -> Path:
    """A LoRA of the tiny GPT-2 as PEFT writes it."""
    folder.mkdir(exist_ok=True)
    values = LORA | {"base_model_name_or_path": None if base is None else str(base)} | changes
    (folder / "adapter_config.json").write_text(json.dumps(values))
    torch.manual_seed(0)
    weights = {}
    for layer in range(2):
        place = f"base_model.model.transformer.h.{layer}.attn.c_attn"
        weights[f"{place}.lora_A.weight"] = torch.randn(2, 16)
        weights[f"{place}.lora_B.weight"] = torch.randn(48, 2)
    safetensors.torch.save_file(weights, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def copy(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(checkpoint(name), tmp_path / name))


def refused(name: str | Path, *words: str) -> None:
    for load in (load_model, read_model_info):
        with pytest.raises(ModelError) as caught:
            load(str(name))
        message = str(caught.value)
        assert "\n" not in message
        assert str(name) in message
        for word in words:
            assert word in message, message


# --------------------------------------------------------------------------------- without the package


@without_peft
def test_an_adapter_is_refused_by_name(
    checkpoint: Callable[[str], Path], copy: Callable[[str], Path], tmp_path: Path
) -> None:
    beside = write_lora(copy("gpt2"), checkpoint("gpt2"))
    alone = write_lora(tmp_path / "alone", checkpoint("gpt2"))
    for folder in (beside, alone):
        refused(folder, "adapter_config.json", "LORA", "pip install peft")
    (alone / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    refused(alone, "adapter_config.json", "IA3", "pip install peft")


@without_peft
def test_an_adapter_is_refused_on_the_command_line(
    promptfuse: Callable[..., tuple[int, str, str]], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = write_lora(tmp_path / "alone", checkpoint("gpt2"))
    code, out, err = promptfuse("adapter", "fit", folder, "mini-clip")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "pip install peft" in err


@pytest.mark.parametrize(
    "kind", ["PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "ADAPTION_PROMPT", "XLORA", "POLY"]
)
def test_kinds_that_are_no_change_of_weights(
    kind: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = write_lora(tmp_path / "alone", checkpoint("gpt2"), peft_type=kind)
    refused(folder, kind, "does not change weights")


def test_files_of_an_adapter_that_are_not_whole(copy: Callable[[str], Path], tmp_path: Path) -> None:
    base = copy("gpt2")
    folder = write_lora(tmp_path / "alone", base)
    (folder / "adapter_model.safetensors").rename(base / "adapter_model.safetensors")
    refused(folder, "adapter_config.json without adapter_model.safetensors")
    refused(base, "adapter_model.safetensors without adapter_config.json")
    (folder / "adapter_model.bin").touch()
    refused(folder, "adapter_model.bin, a pickle", "save it again as safetensors")
    (folder / "adapter_config.json").write_text("{")
    refused(folder, "adapter_config.json is damaged")
    (folder / "adapter_config.json").write_text(json.dumps({"config": {"reduction_factor": 16}}))
    refused(folder, "adapter_config.json is not from PEFT")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n"
    (folder / "adapter_config.json").write_text(pointer)
    refused(folder, "adapter_config.json is a git-lfs pointer")
    write_lora(folder, base)
    (folder / "adapter_model.safetensors").write_text(pointer)
    refused(folder, "adapter_model.safetensors is a git-lfs pointer", "git lfs pull")


def test_adapters_in_folders_below(copy: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    base = copy("gpt2")
    below = write_lora(base / "style", base)
    assert load_model(base).kind == "causal-lm"
    (message,) = [record.getMessage() for record in caplog.records]
    assert "style is not merged" in message
    assert str(below) in message
    (base / "config.json").unlink()
    refused(base, "no config.json", f"give {below}")


@pytest.mark.parametrize("file", ["pytorch_lora_weights.safetensors", "style.safetensors"])
def test_changes_in_files_of_other_names(file: str, copy: Callable[[str], Path]) -> None:
    base = copy("gpt2")
    weights = {"text_model.q_proj.lora_down.weight": torch.zeros(2, 2)}
    safetensors.torch.save_file(weights, base / file)
    refused(base, file, "not merged", "text_model.q_proj.lora_down.weight")


def test_changes_among_the_weights(copy: Callable[[str], Path]) -> None:
    base = copy("gpt2")
    weights = safetensors.torch.load_file(base / "model.safetensors")
    weights["transformer.h.0.attn.c_attn.lora_A.default.weight"] = torch.zeros(2, 16)
    safetensors.torch.save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="unmerged") as caught:
        load_model(base)
    assert "lora_A.default.weight" in str(caught.value)


# ------------------------------------------------------------------------------------ with the package


def expected_logits(base: Path, scale: float = 4.0) -> torch.Tensor:
    """What GPT-2 gives with the weights of ``write_lora`` added by hand: W + alpha / r times B A."""
    loaded = load_model(base)
    weights = safetensors.torch.load_file(base.parent / "alone" / "adapter_model.safetensors")
    for layer, block in enumerate(loaded.module.transformer.h):
        place = f"base_model.model.transformer.h.{layer}.attn.c_attn"
        change = weights[f"{place}.lora_B.weight"] @ weights[f"{place}.lora_A.weight"]
        block.attn.c_attn.weight.data += scale * change.T
    batch = loaded.encode(TEXTS)
    return loaded.module(input_ids=batch.ids, attention_mask=batch.mask).logits


@needs_peft
def test_a_lora_is_merged(copy: Callable[[str], Path], tmp_path: Path) -> None:
    base = copy("gpt2")
    alone = write_lora(tmp_path / "alone", base)
    near = write_lora(tmp_path / "near", "../gpt2")
    expected = expected_logits(base)
    plain = load_model(base)
    batch = plain.encode(TEXTS)
    assert (plain.module(input_ids=batch.ids, attention_mask=batch.mask).logits - expected).abs().max() > 0.1
    beside = write_lora(Path(shutil.copytree(base, tmp_path / "beside")), None)
    for folder in (alone, near, beside):
        loaded = load_model(folder)
        found = loaded.module(input_ids=batch.ids, attention_mask=batch.mask).logits
        assert torch.allclose(found, expected, atol=1e-4)
        assert type(loaded.module).__name__ == "GPT2LMHeadModel"
        assert loaded.name == str(folder)
        assert not any("lora" in name for name, _ in loaded.module.named_modules())
        assert read_model_info(str(folder)).role is type(loaded)


def save_adapter(kind: str, base: Path, folder: Path, **settings: Any) -> Any:
    """An adapter of any kind with random weights, made by PEFT itself; the module with it, not merged."""
    import peft

    loaded = load_model(base)
    torch.manual_seed(1)
    tuned = peft.get_peft_model(loaded.module, getattr(peft, f"{kind}Config")(**settings))
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, mean=1.0 if "ia3" in name else 0.0, std=0.3)
    tuned.save_pretrained(folder)
    return tuned.eval()


@needs_peft
@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        ("Lora", "llama", {"target_modules": ["q_proj", "v_proj"], "use_dora": True}),
        ("Lora", "llama", {"target_modules": "all-linear", "use_rslora": True}),
        ("Lora", "llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
        ("Lora", "gpt2", {"target_modules": ["wte", "c_attn"]}),
        ("Lora", "qwen2", {"target_modules": ["lm_head"]}),
        ("IA3", "llama", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
        ("LoHa", "llama", {"target_modules": ["q_proj"]}),
        ("LoKr", "llama", {"target_modules": ["q_proj"]}),
        ("Lora", "bert", {"target_modules": ["query"], "modules_to_save": ["classifier"]}),
        ("Lora", "clip", {"target_modules": ["q_proj", "v_proj"]}),
        ("Lora", "siglip", {"target_modules": ["q_proj", "v_proj"]}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_every_kind_gives_what_it_gives_not_merged(
    kind: str, name: str, settings: dict[str, Any], copy: Callable[[str], Path], tmp_path: Path
) -> None:
    base, alone = copy(name), tmp_path / "alone"
    tuned = save_adapter(kind, base, alone, **settings)
    (alone / "adapter_config.json").write_text(
        json.dumps(
            json.loads((alone / "adapter_config.json").read_text()) | {"base_model_name_or_path": str(base)}
        )
    )
    loaded, plain = load_model(alone), load_model(base)
    batch = plain.encode(TEXTS)
    with torch.no_grad():
        read = [
            getattr(module, "get_text_features", module)(input_ids=batch.ids, attention_mask=batch.mask)[0]
            for module in (loaded.module, tuned.get_base_model(), plain.module)
        ]
    assert torch.allclose(read[0], read[1], atol=2e-3)
    assert (read[2] - read[1]).abs().max() > 1e-2


@needs_peft
@pytest.mark.filterwarnings("ignore")
def test_tokens_of_its_own(copy: Callable[[str], Path], tmp_path: Path) -> None:
    import peft

    base, alone = copy("llama"), tmp_path / "alone"
    loaded = load_model(base)
    loaded.tokenizer.add_tokens(["zebrafish"])
    loaded.module.resize_token_embeddings(len(loaded.tokenizer), mean_resizing=False)
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    tuned = peft.get_peft_model(loaded.module, peft.LoraConfig(**settings))
    tuned.save_pretrained(alone)
    loaded.tokenizer.save_pretrained(alone)
    values = json.loads((alone / "adapter_config.json").read_text())
    (alone / "adapter_config.json").write_text(json.dumps(values | {"base_model_name_or_path": str(base)}))
    found = load_model(alone)
    assert len(found.embedding_table) == len(loaded.tokenizer)
    assert len(found.token_rows(["zebrafish"])[0][0]) < len(load_model(base).token_rows(["zebrafish"])[0][0])


@needs_peft
def test_an_adapter_for_another_model(copy: Callable[[str], Path], tmp_path: Path) -> None:
    llama = copy("llama")
    refused_by_loading(write_lora(tmp_path / "a", llama), "adapter of kind LORA", "c_attn")
    refused_by_loading(write_lora(tmp_path / "b", copy("gpt2"), target_modules=["c_proj"]), "does not fit")
    refused_by_loading(write_lora(tmp_path / "c", tmp_path / "nowhere"), "base cannot be found", "nowhere")
    refused_by_loading(write_lora(tmp_path / "d", None), "does not say which model")
    circle = write_lora(tmp_path / "e", tmp_path / "e")
    refused_by_loading(circle, "name the base")


def refused_by_loading(folder: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    for word in (str(folder), *words):
        assert word in str(caught.value), str(caught.value)
