from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import torch
import transformers

from promptfuse.errors import ModelError, TextError
from promptfuse.models import CausalLM, ImageTextModel, Model, SequenceClassifier, load_model

KINDS = {
    "gpt2": (CausalLM, "GPT2LMHeadModel"),
    "llama": (CausalLM, "LlamaForCausalLM"),
    "opt": (CausalLM, "OPTForCausalLM"),
    "qwen2": (CausalLM, "Qwen2ForCausalLM"),
    "clip": (ImageTextModel, "CLIPModel"),
    "siglip": (ImageTextModel, "SiglipModel"),
    "dual": (ImageTextModel, "VisionTextDualEncoderModel"),
    "bert": (SequenceClassifier, "BertForSequenceClassification"),
    "roberta": (SequenceClassifier, "RobertaForSequenceClassification"),
}
HIDDEN = 16


@pytest.fixture
def copy(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a checkpoint that a test may damage."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(checkpoint(name), tmp_path / name))

    return make


@pytest.fixture(autouse=True)
def _silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Any:
    """Whatever is loaded or refused, nothing is written into the caller's terminal."""
    yield
    out, err = capfd.readouterr()
    assert out + err == ""
    # Pytest may hold the stream that the libraries' loggers write to, so these are looked at themselves.
    assert [record.getMessage() for record in caplog.get_records("call")] == []


def refused(name: str | Path, *parts: str) -> str:
    """The message of the error, which is one line with these parts."""
    with pytest.raises(ModelError) as caught:
        load_model(name)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for part in parts:
        assert part in message
    return message


def edit(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


# ---------------------------------------------------------------------------------------- what loads


@pytest.mark.parametrize("name", KINDS)
def test_the_class_follows_the_configuration(name: str, checkpoint: Callable[[str], Path]) -> None:
    loaded = load_model(str(checkpoint(name)))
    assert type(loaded) is KINDS[name][0]
    assert type(loaded.module).__name__ == KINDS[name][1]
    assert loaded.name == str(checkpoint(name))
    assert not loaded.module.training
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", KINDS)
def test_loaded_weights_are_the_saved_ones(name: str, checkpoint: Callable[[str], Path]) -> None:
    loaded = load_model(checkpoint(name)).module.state_dict()
    saved = safetensors.torch.load_file(checkpoint(name) / "model.safetensors")
    assert saved
    for key, value in saved.items():
        assert torch.equal(loaded[key], value), key


@pytest.mark.parametrize("name", KINDS)
def test_embedding_table_has_a_row_for_every_id(name: str, model: Callable[..., Any]) -> None:
    loaded = model(name)
    ids = loaded.encode(["A brown dog runs."]).ids
    assert loaded.embedding_table.shape == (loaded.embedding.num_embeddings, HIDDEN)
    assert len(loaded.embedding_table) >= len(loaded.tokenizer)
    assert torch.equal(loaded.embedding(ids), loaded.embedding_table[ids])
    assert not loaded.embedding_table.requires_grad


def test_embedding_table_is_what_the_module_puts_out(model: Callable[..., Any]) -> None:
    class Scaled(torch.nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return 3 * super().forward(ids)

    loaded = model("gpt2")
    plain = loaded.embedding
    scaled = Scaled(*plain.weight.shape)
    scaled.weight.data.copy_(plain.weight)

    class Holder(CausalLM):
        embedding = scaled  # type: ignore[assignment]

    assert torch.equal(
        Holder(loaded.module, loaded.tokenizer, "scaled").embedding_table, 3 * loaded.embedding_table
    )


def test_fingerprints_tell_models_apart_and_stay_the_same(checkpoint: Callable[[str], Path]) -> None:
    first = {name: load_model(checkpoint(name)).fingerprint for name in KINDS}
    second = {name: load_model(checkpoint(name)).fingerprint for name in KINDS}
    assert first == second
    assert len(set(first.values())) == len(KINDS)


def test_the_fingerprint_covers_table_and_tokenizer(copy: Callable[[str], Path]) -> None:
    folder = copy("bert")
    plain = load_model(folder).fingerprint
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][7, 3] += 1e-3
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    moved = load_model(folder).fingerprint
    edit(folder, "tokenizer_config.json", do_lower_case=False)
    cased = load_model(folder).fingerprint
    assert len({plain, moved, cased}) == 3


def test_a_tokenizer_that_cuts_and_pads_by_itself_does_not(copy: Callable[[str], Path]) -> None:
    folder = copy("bert")
    state = json.loads((folder / "tokenizer.json").read_text())
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None}
    pad |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    (folder / "tokenizer.json").write_text(json.dumps(state | {"truncation": cut, "padding": pad}))
    fresh, used = load_model(folder), load_model(folder)
    rows, _ = used.token_rows(["a brown dog runs through the green grass", "dog"])
    assert len(rows[0]) > 9
    assert len(rows[1]) == 3
    assert fresh.fingerprint == used.fingerprint


def test_half_precision_files_load_in_single_precision(copy: Callable[[str], Path]) -> None:
    folder = copy("gpt2")
    transformers.logging.disable_progress_bar()
    half = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    half.save_pretrained(folder)
    transformers.logging.enable_progress_bar()
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    loaded = load_model(folder)
    assert loaded.embedding_table.dtype == torch.float32
    assert torch.equal(loaded.embedding_table, half.transformer.wte.weight.float())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_can_be_chosen(dtype: torch.dtype, checkpoint: Callable[[str], Path]) -> None:
    loaded = load_model(checkpoint("clip"), dtype=dtype)
    assert loaded.embedding_table.dtype == dtype
    wide = loaded.text_features(loaded.encode(["a dog"])).dtype
    assert wide == torch.promote_types(dtype, torch.float32)


def test_old_style_photo_settings_load(copy: Callable[[str], Path]) -> None:
    # As openai/clip-vit-base-patch32 states them.
    folder = copy("clip")
    settings = {
        "crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4], "resample": 3, "size": 32,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    loaded = load_model(folder)
    assert isinstance(loaded, ImageTextModel)
    assert list(loaded.processor.image_mean) == [0.5, 0.4, 0.3]


def test_siglip_as_the_hub_has_it_gets_its_fast_tokenizer(
    copy: Callable[[str], Path], model: Callable[..., Any]
) -> None:
    folder = copy("siglip")
    edit(folder, "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    texts = ["A brown dog runs!", "two children"]
    assert load_model(folder).token_rows(texts) == model("siglip").token_rows(texts)


def test_loading_leaves_the_logging_as_it_was(checkpoint: Callable[[str], Path]) -> None:
    transformers.logging.set_verbosity_info()
    try:
        before = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
        load_model(checkpoint("gpt2"))
        with pytest.raises(ModelError):
            load_model(checkpoint("gpt2") / "nowhere")
        after = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    finally:
        transformers.logging.set_verbosity_warning()
    assert after == before


# ------------------------------------------------------------------------------------ what fits


@pytest.mark.parametrize("name", KINDS)
def test_rows_up_to_the_stated_length_run_and_longer_ones_are_refused(
    name: str, model: Callable[..., Any]
) -> None:
    loaded: Model = model(name)
    fixed = 1 if name == "siglip" or loaded.kind == "causal-lm" else 2
    text = _of_length(loaded, loaded.max_length, fixed)
    batch = loaded.encode([text])
    assert batch.ids.shape[1] == loaded.max_length
    outputs = {
        CausalLM: lambda model: model.nll(batch)[0],
        ImageTextModel: lambda model: model.text_features(batch),
        SequenceClassifier: lambda model: model.log_probabilities(batch),
    }[type(loaded)](loaded)
    assert torch.isfinite(outputs).all()
    longer = _of_length(loaded, loaded.max_length + 1, fixed)
    with pytest.raises(
        TextError, match=f"{loaded.max_length + 1} tokens, the model reads at most {loaded.max_length}"
    ):
        loaded.encode([text, longer])


def _of_length(loaded: Model, length: int, fixed: int) -> str:
    """A text of single-token words that fills a row of this length."""
    text = "dog"
    while len(text.split()) <= length:
        rows = loaded.tokenizer([text], add_special_tokens=False)["input_ids"]
        if len(rows[0]) + fixed == length:
            return text
        text += " a"
    raise AssertionError("no text of this length")


def test_the_models_that_state_more_positions_than_they_have(model: Callable[..., Any]) -> None:
    # RoBERTa's table has 34 rows, of which the first two stand for no position.
    assert model("roberta").max_length == 32
    assert model("opt").max_length == 48


# ----------------------------------------------------------------------------------- what is refused


def test_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", _unreachable)
    for name in (str(tmp_path / "nowhere"), tmp_path / "nowhere", "./nowhere", "a/b/c", Path("nowhere")):
        refused(name, str(name), "no such folder", "check the path")


def test_a_file_in_place_of_a_folder(checkpoint: Callable[[str], Path]) -> None:
    refused(checkpoint("gpt2") / "model.safetensors", "is a file", "give its folder")


def test_folder_without_config(copy: Callable[[str], Path]) -> None:
    folder = copy("gpt2")
    (folder / "config.json").unlink()
    refused(folder, str(folder), "no config.json", "save_pretrained")


def test_folder_without_tokenizer(copy: Callable[[str], Path]) -> None:
    folder = copy("gpt2")
    for file in folder.glob("*token*"):
        file.unlink()
    refused(folder, str(folder), "no tokenizer", "save the model's tokenizer beside it")


def test_folder_without_weights(copy: Callable[[str], Path]) -> None:
    folder = copy("gpt2")
    (folder / "model.safetensors").unlink()
    refused(folder, str(folder), "the model cannot be loaded", "model.safetensors")


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 522284877\n"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("gpt2", "model.safetensors"),
        ("gpt2", "tokenizer.json"),
        ("bert", "tokenizer.json"),
        ("llama", "config.json"),
        ("clip", "preprocessor_config.json"),
    ],
)
def test_files_that_git_lfs_has_not_fetched(name: str, file: str, copy: Callable[[str], Path]) -> None:
    folder = copy(name)
    (folder / file).write_text(POINTER, encoding="ascii")
    refused(folder, str(folder / file), "is a git-lfs pointer", "git lfs pull")
    refused(folder / file, str(folder / file), "is a git-lfs pointer")


def test_shards_that_git_lfs_has_not_fetched(copy: Callable[[str], Path]) -> None:
    folder = copy("gpt2")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_text(POINTER, encoding="ascii")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    refused(folder, "model-00002-of-00002.safetensors: is a git-lfs pointer", "git lfs pull")


def test_pointers_that_nobody_reads_do_no_harm(copy: Callable[[str], Path]) -> None:
    folder = copy("gpt2")
    for file in ("pytorch_model.bin", "tf_model.h5", "merges.txt", "spiece.model", "model.onnx"):
        (folder / file).write_text(POINTER, encoding="ascii")
    assert load_model(folder).kind == "causal-lm"


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
def test_damaged_weights(kept: float, copy: Callable[[str], Path]) -> None:
    path = copy("gpt2") / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(path.parent, str(path.parent), "the model cannot be loaded", "check the id or the folder's files")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"no json", b"[]", b"null", b"{}", b'{"model_type": 3}', b"\xff\xfe\x00", b'"gpt2"'],
)
def test_config_that_is_none(content: bytes, copy: Callable[[str], Path]) -> None:
    folder = copy("gpt2")
    (folder / "config.json").write_bytes(content)
    refused(folder, str(folder), "the configuration cannot be loaded")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe\x00"])
def test_tokenizer_file_that_is_none(content: bytes, copy: Callable[[str], Path]) -> None:
    folder = copy("gpt2")
    (folder / "tokenizer.json").write_bytes(content)
    refused(folder, str(folder), "the tokenizer cannot be loaded")


def test_photo_settings_missing(copy: Callable[[str], Path]) -> None:
    folder = copy("clip")
    (folder / "preprocessor_config.json").unlink()
    refused(folder, str(folder), "the image processor cannot be loaded")


def test_checkpoint_without_the_head_of_its_role(copy: Callable[[str], Path]) -> None:
    folder = copy("bert")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights = {key: value for key, value in weights.items() if not key.startswith("classifier")}
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(
        folder,
        "lack 2 parameters of BertForSequenceClassification",
        "classifier.bias",
        "trained for this role",
    )


def test_weights_of_another_shape(copy: Callable[[str], Path]) -> None:
    folder = copy("gpt2")
    edit(folder, "config.json", n_positions=50)
    refused(
        folder, "transformer.wpe.weight", "(40, 16)", "(50, 16)", "config.json that belongs to the weights"
    )


def test_unsupported_kind(copy: Callable[[str], Path]) -> None:
    folder = copy("bert")
    edit(folder, "config.json", architectures=["BertForTokenClassification"])
    refused(
        folder, "BertForTokenClassification", "not a causal LM", "sequence classifier or sentence encoder"
    )


def test_a_model_that_reads_in_both_directions_is_no_causal_one(copy: Callable[[str], Path]) -> None:
    folder = copy("bert")
    edit(folder, "config.json", architectures=["BertLMHeadModel"])
    refused(folder, "BertLMHeadModel", "not a causal LM")


def test_a_model_that_predicts_a_number_is_no_classifier(copy: Callable[[str], Path]) -> None:
    folder = copy("bert")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    for key in ("classifier.weight", "classifier.bias"):
        weights[key] = weights[key][:1].clone()
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder, "config.json", id2label={"0": "SCORE"}, label2id={"SCORE": 0})
    refused(folder, "predicts a number", "two labels")


def test_tokenizer_without_fast_version(copy: Callable[[str], Path]) -> None:
    folder = copy("gpt2")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())["model"]
    for file in folder.glob("*token*"):
        file.unlink()
    (folder / "vocab.json").write_text(json.dumps(tokenizer["vocab"]))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(map(" ".join, tokenizer["merges"])) + "\n"
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CTRLTokenizer"}))
    refused(folder, str(folder), "no fast version", "tokenizer.json")


def test_ids_beyond_the_table(copy: Callable[[str], Path], checkpoint: Callable[[str], Path]) -> None:
    folder = copy("bert")
    for file in (*folder.glob("*token*"), *folder.glob("vocab*")):
        file.unlink()
    for file in checkpoint("clip").glob("*token*"):
        shutil.copy(file, folder)
    loaded = load_model(folder)
    with pytest.raises(
        ModelError, match=r"gives id 730, the embedding table has 300 rows; use the tokenizer"
    ):
        loaded.encode(["a dog"])


def _unreachable(*args: Any, **kwargs: Any) -> Any:
    raise OSError("Network is unreachable")


def test_hub_id_while_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "create_connection", _unreachable)
    refused("somebody/some-model", "somebody/some-model", "not in the local cache", "HF_HUB_OFFLINE")


def test_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    asked = []

    def record(address: tuple[str, int], timeout: float) -> Any:
        asked.append((address, timeout))
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", record)
    refused("some-model", "some-model", "cannot be reached", "--models mini")
    assert len(asked) == 1
    assert asked[0][0][1] == 443
    assert asked[0][1] <= 5


@pytest.mark.parametrize("name", ["", "no id", "a//b", "-x", "ünïcode", "a/b/", "~/model"])
def test_names_that_are_no_id(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", _unreachable)
    refused(name)
