from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from promptfuse.errors import ConfigError, ModelError, TextError
from promptfuse.objectives import ZeroShotClass, ZeroShotPrompt

LABELS = ["dog", "Bird", "old train"]
MODELS = ("clip", "old-clip", "siglip", "dual")


def features(module: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """Features of a text as transformers alone gives them."""
    full = {"padding": "max_length", "max_length": 28} if "siglip" in module.config.model_type else {}
    ids = tokenizer(text, return_tensors="pt", **full)["input_ids"]
    with torch.no_grad():
        found = module.get_text_features(input_ids=ids)
    return functional.normalize(found if isinstance(found, torch.Tensor) else found.pooler_output, dim=-1)[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_text_is_classified_as_a_photo_would_be(
    name: str, model: Callable[..., Any], score_is_exact: Any
) -> None:
    loaded = model(name)
    scale = loaded.module.logit_scale.exp()
    own = features(loaded.module, loaded.tokenizer, "Two children are playing")
    labels = torch.stack(
        [features(loaded.module, loaded.tokenizer, f"a drawing of {label}.") for label in LABELS]
    )
    expected = -(scale * labels @ own).log_softmax(0)
    for index, label in enumerate(LABELS):
        term = ZeroShotClass(loaded, label, LABELS, template="a drawing of {}.")
        assert term.exact("Two children are playing") == pytest.approx(float(expected[index]), abs=1e-4)
        score_is_exact(term)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_the_text_is_the_prompt_of_a_photo(
    name: str, model: Callable[..., Any], photos: Any, score_is_exact: Any
) -> None:
    loaded = model(name)
    scale = loaded.module.logit_scale.exp()
    image = loaded.image_features(photos)
    labels = torch.stack([features(loaded.module, loaded.tokenizer, f"The big {label}.") for label in LABELS])
    expected = -(scale * image @ labels.T).log_softmax(1)
    for index, label in enumerate(LABELS):
        frame = {"prefix": "The ", "template": " {}."}
        one = ZeroShotPrompt(loaded, photos[1], label, LABELS, **frame)
        assert one.exact("big") == pytest.approx(float(expected[1, index]), abs=1e-4)
        term = ZeroShotPrompt(loaded, photos, label, LABELS, **frame)
        assert term.exact("big") == pytest.approx(float(expected[:, index].mean()), abs=1e-4)
        score_is_exact(term)


def test_a_text_that_says_the_label_puts_it_first(model: Callable[..., Any]) -> None:
    loaded = model("clip")
    losses = [ZeroShotClass(loaded, label, LABELS, template="A {}").exact("A dog") for label in LABELS]
    assert min(losses) == losses[0]
    assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_gradients(
    name: str, model: Callable[..., Any], photos: Any, slope_is_right: Any, slot_is_the_next_word: Any
) -> None:
    wide = model(name, torch.float64)
    slope_is_right(ZeroShotClass(wide, "bird", LABELS, suffix=" in snow"))
    slope_is_right(ZeroShotPrompt(wide, photos, "bird", LABELS, prefix="A photo of ", suffix=" big"))
    slot_is_the_next_word(ZeroShotClass(model(name), "bird", LABELS))
    slot_is_the_next_word(ZeroShotPrompt(model(name), photos, "bird", LABELS))


def test_descriptions(model: Callable[..., Any], photos: Any, same_search: Any) -> None:
    loaded = model("clip")
    term = ZeroShotClass(loaded, "DOG", LABELS)
    assert term.describe() | {"model": ""} == {
        "kind": "ZeroShotClass", "model": "", "weight": 2.0, "prefix": "", "suffix": "", "label": "dog",
        "labels": LABELS, "template": "a photo of {}",
    }  # fmt: skip
    prompt = ZeroShotPrompt(loaded, photos, "dog", LABELS)
    assert prompt.describe()["endings"] == [" dog", " Bird", " old train"]
    assert same_search(prompt, ZeroShotPrompt(loaded, photos, "dog", LABELS))
    assert not same_search(prompt, ZeroShotPrompt(loaded, photos, "bird", LABELS))
    assert not same_search(prompt, ZeroShotPrompt(loaded, photos[:1], "dog", LABELS))


@pytest.mark.parametrize("kind", ["class", "prompt"])
def test_what_is_refused(kind: str, model: Callable[..., Any], photos: Any) -> None:
    def make(label: str, labels: Any, name: str = "clip", **more: Any) -> Any:
        if kind == "class":
            return ZeroShotClass(model(name), label, labels, **more)
        return ZeroShotPrompt(model(name), photos[0], label, labels, **more)

    with pytest.raises(ConfigError, match="no label 'cat'; choose from: dog, Bird, old train"):
        make("cat", LABELS)
    for labels in (["dog"], [], ["dog", "Dog"], ["dog", " "], "dog"):
        with pytest.raises(ConfigError, match="give at least two different ones"):
            make("dog", labels)
    with pytest.raises(ConfigError, match="no slot for the label"):
        make("dog", LABELS, template="a photo")
    with pytest.raises(ModelError, match=r"needs a model of kind image-text; .* is of kind classifier"):
        make("dog", LABELS, "bert")
    with pytest.raises(TextError, match="the model reads at most"):
        make("dog", LABELS).exact("dog cat " * 60)
    assert make("dog", LABELS, weight=-3).weight == -3
    full = make("dog", LABELS)
    longest = "dog"
    while len(full.model.token_rows([longest + " a"])[0][0]) < full.model.max_length:
        longest += " a"
    full.check("dog")
    if kind == "prompt":  # There must be room for the label too.
        with pytest.raises(TextError, match="the model reads at most"):
            full.check(longest)
    else:
        full.check(longest)
