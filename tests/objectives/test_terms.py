from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from promptfuse.errors import ConfigError, ImageError, ModelError, TextError
from promptfuse.models import load_model
from promptfuse.objectives import ClassProbability, Fluency, ImageSimilarity, Term

TEXTS = (
    "A brown dog runs.",
    "dog",
    "Two children are playing, in the park",
    "Café 日本",
    "a dog",
    "A dog",
    "the best film",
)
MODELS = ("gpt2", "llama", "opt", "qwen2", "clip", "siglip", "dual", "bert", "roberta")


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def term_of(model: Any, **changes: Any) -> Term:
    if model.kind == "causal-lm":
        return Fluency(model, **changes)
    if model.kind == "image-text":
        return ImageSimilarity(model, photo(), **changes)
    return ClassProbability(model, "positive", **changes)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 256])
@pytest.mark.parametrize("name", MODELS)
def test_score_is_exact_whatever_the_batch(name: str, batch_size: int, model: Callable[..., Any]) -> None:
    term = term_of(model(name))
    found = term.score(TEXTS, batch_size)
    exact = [term.exact(text) for text in TEXTS]
    assert found.shape == (len(TEXTS),)
    assert found.tolist() == pytest.approx(exact, abs=1e-5)
    assert len({round(value, 3) for value in exact}) > 3
    assert term.score(TEXTS[::-1], batch_size).tolist() == pytest.approx(exact[::-1], abs=1e-5)


def test_score_of_no_texts(model: Callable[..., Any]) -> None:
    assert term_of(model("clip")).score([]).shape == (0,)


def test_score_keeps_the_precision_of_the_model(model: Callable[..., Any]) -> None:
    for name in ("gpt2", "clip", "bert"):
        term = term_of(model(name, torch.float64))
        found = term.score(TEXTS)
        assert found.dtype == torch.float64
        assert found.tolist() == pytest.approx([term.exact(text) for text in TEXTS], abs=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_prefix_and_suffix_are_part_of_the_text(name: str, model: Callable[..., Any]) -> None:
    loaded = model(name)
    framed = term_of(loaded, prefix="An image of ", suffix=", in snow.")
    plain = term_of(loaded)
    assert framed.wrap("a dog") == "An image of a dog, in snow."
    if isinstance(framed, Fluency):  # Of the text given the prefix.
        (whole_nll, before_nll), (count, known) = loaded.nll(
            loaded.encode(["An image of a dog, in snow.", "An image of"])
        )
        whole = float((whole_nll - before_nll) / (count - known))
    else:
        whole = plain.exact("An image of a dog, in snow.")
    assert framed.exact("a dog") == pytest.approx(whole, abs=1e-5)
    assert framed.score(["a dog", "dog"])[0] == pytest.approx(whole, abs=1e-5)
    assert framed.exact("a dog") != pytest.approx(plain.exact("a dog"), abs=1e-5)


def test_fluency_is_the_mean_nll_per_token(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    total, count = lm.nll(lm.encode(["A brown dog runs."]))
    assert int(count) > 4
    assert Fluency(lm).exact("A brown dog runs.") == pytest.approx(float(total / count))


@pytest.mark.parametrize("exponent", [0.0, 0.4, 1.0])
def test_fluency_divides_by_a_power_of_the_length(
    model: Callable[..., Any], score_is_exact: Any, slope_is_right: Any, exponent: float
) -> None:
    lm = model("gpt2")
    term = Fluency(lm, length_exponent=exponent)
    for text in TEXTS:
        total, count = (float(number) for number in lm.nll(lm.encode([text])))
        expected = total / (count**exponent * 12 ** (1 - exponent))
        assert term.exact(text) == pytest.approx(expected, abs=1e-5)
    score_is_exact(term)
    slope_is_right(Fluency(model("gpt2", torch.float64), length_exponent=exponent, suffix=" in snow"))


def test_a_text_of_the_typical_length_has_one_fluency(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    row = lm.plain_ids([" ".join(TEXTS)])[0][:12]
    text = lm.tokenizer.decode(row)
    assert lm.plain_ids([text])[0] == row
    losses = [Fluency(lm, length_exponent=exponent).exact(text) for exponent in (0, 0.3, 0.9, 1)]
    assert losses == pytest.approx([losses[-1]] * 4, abs=1e-5)


@pytest.mark.parametrize("exponent", [-0.1, 1.1, math.nan])
def test_a_length_exponent_out_of_range_is_refused(model: Callable[..., Any], exponent: float) -> None:
    with pytest.raises(ConfigError, match=r"length exponent: .* must be from 0 \(sum\) to 1 \(mean\)"):
        Fluency(model("gpt2"), length_exponent=exponent)


def test_terms_that_differ_in_the_length_exponent_are_told_apart(
    model: Callable[..., Any], same_search: Any
) -> None:
    lm = model("gpt2")
    assert not same_search(Fluency(lm), Fluency(lm, length_exponent=0.5))


def test_image_similarity_is_one_minus_the_cosine(model: Callable[..., Any], tmp_path: Path) -> None:
    encoder = model("dual")
    photo().save(tmp_path / "a.png")
    term = ImageSimilarity(encoder, tmp_path / "a.png")
    text = encoder.text_features(encoder.encode(["a dog"]))[0]
    image = encoder.image_features([photo()])[0]
    assert term.exact("a dog") == pytest.approx(1 - float(text @ image), abs=1e-6)
    assert 0 <= term.exact("a dog") <= 2
    assert ImageSimilarity(encoder, photo(1)).exact("a dog") != pytest.approx(term.exact("a dog"), abs=1e-6)
    with pytest.raises(ImageError, match="no such file"):
        ImageSimilarity(encoder, tmp_path / "b.png")


def test_class_probability_is_that_of_each_text_alone(model: Callable[..., Any]) -> None:
    # Averaged over the batch, a classifier's loss could not rank candidates.
    tone = model("roberta")
    losses = {label: ClassProbability(tone, label).score(TEXTS) for label in tone.labels}
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([tone.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            expected = -tone.module(input_ids=ids).logits.log_softmax(-1)[0]
        assert [float(losses[label][row]) for label in tone.labels] == pytest.approx(
            expected.tolist(), abs=1e-5
        )
    assert sum(math.exp(-float(losses[label][0])) for label in tone.labels) == pytest.approx(1)
    more = ClassProbability(tone, "positive").score([*TEXTS, "terrible", "dull and terrible"])
    assert more[: len(TEXTS)].tolist() == pytest.approx(losses["positive"].tolist(), abs=1e-5)


def test_unknown_label(model: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="choose from: Negative, Positive"):
        ClassProbability(model("bert"), "neutral")
    assert ClassProbability(model("bert"), "POSITIVE").index == 1


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 0, 0.0])
def test_weights_that_are_none(weight: float, model: Callable[..., Any]) -> None:
    for make in (
        lambda: Fluency(model("gpt2"), weight),
        lambda: ImageSimilarity(model("clip"), photo(), weight),
        lambda: ClassProbability(model("bert"), "positive", weight),
    ):
        with pytest.raises(ConfigError, match=r"weight of \w+: .* must be finite and not zero"):
            make()
    assert Fluency(model("gpt2"), -2).weight == -2.0


def test_models_of_another_kind(model: Callable[..., Any]) -> None:
    with pytest.raises(
        ModelError, match=r"Fluency needs a model of kind causal-lm; .* is of kind image-text"
    ):
        Fluency(model("clip"))
    with pytest.raises(
        ModelError, match=r"ImageSimilarity needs a model of kind image-text; .* is of kind classifier"
    ):
        ImageSimilarity(model("bert"), photo())
    with pytest.raises(
        ModelError, match=r"ClassProbability needs a model of kind classifier; .* is of kind causal-lm"
    ):
        ClassProbability(model("gpt2"), "positive")


def test_texts_that_do_not_fit(model: Callable[..., Any]) -> None:
    for name in MODELS:
        term = term_of(model(name))
        with pytest.raises(TextError, match="tokens, the model reads at most"):
            term.exact("dog cat " * 60)
        with pytest.raises(TextError, match="tokens, the model reads at most"):
            term.score(["dog", "dog cat " * 60])


def test_fluency_of_an_empty_text_has_no_value(model: Callable[..., Any]) -> None:
    for settings in ({}, {"prefix": "A dog"}, {"context": "A dog"}):
        for texts in ([""], ["dog", ""]):
            with pytest.raises(TextError, match="at least one word"):
                Fluency(model("gpt2"), **settings).score(texts)


def test_a_loss_that_is_no_number_names_the_text(checkpoint: Callable[[str], Path]) -> None:
    lm = load_model(checkpoint("gpt2"))
    (ids,) = lm.tokenizer(["dog"])["input_ids"]
    broken = next(index for index in ids if index not in lm.tokenizer("A")["input_ids"])
    lm.embedding.weight.data[broken] = math.nan  # type: ignore[union-attr, operator, index]
    with pytest.raises(ModelError, match="the loss of 'dog' is not finite; load it in float32"):
        Fluency(lm).exact("dog")
    with pytest.raises(ModelError, match="'dog' is not finite"):
        ClassProbability.score(Fluency(lm), ["dog"])
