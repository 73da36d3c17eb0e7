"""SigLIP's texts are spelled, padded and read as its own processors do it, or as it was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch.nn import functional

import promptfuse as pf
from promptfuse.models import load_model
from tests.checkpoint_tokenizers import SENTENCES
from tests.checkpoints import excite
from tests.conftest import quiet
from tests.tokenizer_training import train_bpe

SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
TEXTS = ["A Brown Dog, runs!", "two children", "A MAN  in a red shirt."]
SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2
}  # fmt: skip


def gemma_like() -> dict[str, Any]:
    """Vocabulary and merges of a tokenizer as SigLIP 2's, in which case tells tokens apart."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    train_bpe(tokenizer, [*SENTENCES, *map(str.lower, SENTENCES)], 420, SPECIALS, [])
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def ends(tokenizer: Any) -> Any:
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    return tokenizer


def save(folder: Path, tokenizer: Any, *, flexible: bool = False) -> Path:
    """A tiny SigLIP or, flexible, SigLIP 2 of photos of any shape, with this tokenizer."""
    torch.manual_seed(0)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 24, "projection_size": 16} | SIZES
    text |= {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    with quiet():
        if flexible:
            vision = SIZES | {"patch_size": 8, "num_patches": 16}
            module: Any = transformers.Siglip2Model(
                transformers.Siglip2Config(text_config=text, vision_config=vision)
            )
            processor: Any = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
        else:
            vision = SIZES | {"image_size": 16, "patch_size": 8}
            module = transformers.SiglipModel(
                transformers.SiglipConfig(text_config=text, vision_config=vision)
            )
            processor = transformers.SiglipImageProcessorPil(size={"height": 16, "width": 16})
        excite(module).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def photos() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    shapes = [(20, 44, 3), (40, 30, 3)]
    return [Image.fromarray(generator.integers(0, 255, shape, dtype=np.uint8)) for shape in shapes]


# As the hub's checkpoints were made: padded on the right, read without a mask.
AS_MADE: dict[str, Any] = {"padding_side": "right", "model_input_names": ["input_ids"], "do_lower_case": True}


@pytest.mark.parametrize("flexible", [False, True])
def test_features_are_those_of_siglip_2s_own_processor(flexible: bool, tmp_path: Path) -> None:
    tokenizer = ends(transformers.Siglip2Tokenizer(**gemma_like(), **AS_MADE))
    folder = save(tmp_path / "siglip2", tokenizer, flexible=flexible)
    loaded = load_model(folder)
    assert loaded.kind == "image-text"
    with quiet():
        module = transformers.AutoModel.from_pretrained(folder).eval()
        images = transformers.AutoImageProcessor.from_pretrained(folder)
        spelled = transformers.AutoTokenizer.from_pretrained(folder)
    read = spelled(TEXTS, padding="max_length", max_length=24, return_tensors="pt")
    seen = images(images=photos(), return_tensors="pt")
    with torch.no_grad():
        texts = functional.normalize(module.get_text_features(**read).pooler_output, dim=-1)
        pixels = functional.normalize(module.get_image_features(**seen).pooler_output, dim=-1)
    torch.testing.assert_close(loaded.text_features(loaded.encode(TEXTS)), texts, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded.image_features(photos()), pixels, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["GemmaTokenizer", "GemmaTokenizerFast", "TokenizersBackend"])
@pytest.mark.parametrize("flexible", [False, True])
def test_siglip_2_reads_lower_case_whatever_its_tokenizer_is_called(
    name: str, flexible: bool, tmp_path: Path
) -> None:
    tokenizer = ends(transformers.GemmaTokenizer(**gemma_like(), **AS_MADE))
    folder = save(tmp_path / "siglip2", tokenizer, flexible=flexible)
    values = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(values | {"tokenizer_class": name}))
    loaded = load_model(folder)
    lower = [text.lower() for text in TEXTS]
    assert loaded.token_rows(TEXTS) == loaded.token_rows(lower)
    assert tokenizer(TEXTS).input_ids != tokenizer(lower).input_ids  # By itself it would not.
    assert loaded.token_rows(lower)[0] == tokenizer(lower).input_ids
    features = loaded.text_features(loaded.encode(TEXTS))
    assert torch.equal(features, loaded.text_features(loaded.encode(lower)))


def test_siglip_reads_what_its_slow_tokenizer_reads(tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

    (tmp_path / "text").write_text("\n".join(sentence.lower() for sentence in SENTENCES), encoding="utf-8")
    spm.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "spiece"), vocab_size=200, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, add_dummy_prefix=False, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    slow = SiglipTokenizer(str(tmp_path / "spiece.model"), model_input_names=["input_ids"])
    pieces = spm.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="</s>", unk_token="<unk>",
        model_input_names=["input_ids"],
    )  # fmt: skip
    backend = fast.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = save(tmp_path / "siglip", fast)
    values = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(values | {"tokenizer_class": "SiglipTokenizer"}))
    texts = [
        *TEXTS,
        "I don't think it's worth 10 dollars, but we'll see.",
        "[A] {dog}; (runs) \\ ^ - ~",
        "...",
    ]
    loaded = load_model(folder)
    assert loaded.encode_rows(texts)[0] == slow(texts).input_ids
    assert fast(texts).input_ids != slow(texts).input_ids


def test_a_tokenizer_that_spells_so_by_itself_stays_as_it_is(
    checkpoint: Callable[[str], Path], model: Callable[..., Any]
) -> None:
    backend = model("siglip").tokenizer.backend_tokenizer
    saved = Tokenizer.from_file(str(checkpoint("siglip") / "tokenizer.json"))
    assert json.loads(backend.to_str())["normalizer"] == json.loads(saved.to_str())["normalizer"]


def test_a_search_on_siglip_2_is_exact(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    tokenizer = ends(transformers.GemmaTokenizer(**gemma_like(), **AS_MADE))
    siglip = load_model(save(tmp_path / "siglip2", tokenizer, flexible=True))
    lm = load_model(checkpoint("gpt2"))
    objective = pf.Objective(pf.Fluency(lm), pf.ImageSimilarity(siglip, photos(), 5.0))
    result = pf.optimize(objective, pf.AutoDAN(candidates=6), steps=3)
    exact = objective.exact(result.text)
    assert result.value == pytest.approx(exact.value, abs=1e-4)
