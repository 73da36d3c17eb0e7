from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from promptfuse.errors import ConfigError, ImageError, ModelError, TextError
from promptfuse.objectives import Fluency, ImageSimilarity, Objective, TextSimilarity

TARGETS = ["A black bird", "the snow"]


@pytest.fixture(params=["encoder", "clip", "siglip"])
def judge(request: pytest.FixtureRequest, model: Callable[..., Any], encoder: Callable[..., Any]) -> Any:
    """A loader of a model that has features of texts, given a type."""
    name = request.param
    return encoder if name == "encoder" else lambda dtype=torch.float32: model(name, dtype)


def test_text_similarity_is_one_minus_the_cosine(judge: Any, score_is_exact: Any) -> None:
    loaded = judge()
    term = TextSimilarity(loaded, "A black bird")
    own, other = (loaded.text_features(loaded.encode([text]))[0] for text in ("a dog", "A black bird"))
    assert term.exact("a dog") == pytest.approx(
        1 - float(own @ other) / float(own.norm() * other.norm()), abs=1e-6
    )
    assert term.exact("A black bird") == pytest.approx(0, abs=1e-5)
    assert term.exact("a dog") > 1e-4
    score_is_exact(term)


def test_several_texts_count_their_mean(judge: Any, score_is_exact: Any) -> None:
    loaded = judge()
    term = TextSimilarity(loaded, TARGETS, prefix="The ")
    each = [TextSimilarity(loaded, target, prefix="The ").exact("a dog") for target in TARGETS]
    assert term.exact("a dog") == pytest.approx(sum(each) / 2, abs=1e-6)
    assert each[0] != pytest.approx(each[1], abs=1e-4)
    score_is_exact(term)


def test_targets_stand_without_prefix_and_suffix(judge: Any) -> None:
    term = TextSimilarity(judge(), "An image of a dog.", prefix="An image of ", suffix=".")
    assert term.exact("a dog") == pytest.approx(0, abs=1e-5)


def test_gradients_of_text_similarity(judge: Any, slope_is_right: Any, slot_is_the_next_word: Any) -> None:
    slope_is_right(TextSimilarity(judge(torch.float64), TARGETS, suffix="."))
    slot_is_the_next_word(TextSimilarity(judge(), TARGETS))


def test_several_photos_count_their_mean(model: Callable[..., Any], photos: Any, score_is_exact: Any) -> None:
    clip = model("clip")
    term = ImageSimilarity(clip, image=photos)
    each = [ImageSimilarity(clip, photo).exact("a dog") for photo in photos]
    assert term.exact("a dog") == pytest.approx(sum(each) / 3, abs=1e-6)
    assert max(each) - min(each) > 1e-4
    score_is_exact(term)
    # Near photos and far ones: their mean is no unit vector, and must not be made one.
    assert float(term.features.norm()) < 0.9999


def test_gradients_of_several_photos(model: Callable[..., Any], photos: Any, slope_is_right: Any) -> None:
    slope_is_right(ImageSimilarity(model("clip", torch.float64), photos))


def test_descriptions(judge: Any, model: Callable[..., Any], photos: Any, same_search: Any) -> None:
    loaded = judge()
    term = TextSimilarity(loaded, TARGETS, -2.5)
    assert term.describe()["targets"] == TARGETS
    assert term.describe()["weight"] == -2.5
    assert same_search(term, TextSimilarity(loaded, TARGETS, -2.5))
    assert not same_search(term, TextSimilarity(loaded, TARGETS[::-1], -2.5))
    clip = model("clip")
    assert same_search(ImageSimilarity(clip, photos[:1]), ImageSimilarity(clip, photos[0]))
    assert not same_search(ImageSimilarity(clip, photos), ImageSimilarity(clip, photos[:2]))


def test_the_model_is_described_by_all_that_it_is(encoder: Callable[..., Any]) -> None:
    # Differently pooled models may have the same embeddings, and so the same fingerprint.
    model = encoder()
    assert TextSimilarity(model, "dog").describe()["model"] == model.identity
    assert model.settings()["pooling"] == ["mean"]


def test_staying_away(judge: Any) -> None:
    near, far = (Objective(TextSimilarity(judge(), "a dog", weight)) for weight in (2.0, -2.0))
    for text in ("a dog", "the snow"):
        assert near.exact(text).value == pytest.approx(-far.exact(text).value)
    assert near.exact("a dog").value < near.exact("the snow").value
    assert far.exact("a dog").value > far.exact("the snow").value


def test_several_models_of_one_kind(
    model: Callable[..., Any], encoder: Callable[..., Any], photos: Any
) -> None:
    objective = Objective(
        Fluency(model("gpt2")),
        ImageSimilarity(model("clip"), photos[0]),
        ImageSimilarity(model("siglip"), photos[0]),
        TextSimilarity(encoder(), "dog"),
        TextSimilarity(model("clip"), "dog", -1.0),
    )
    assert list(objective.terms) == ["fluency", "image", "image_2", "text", "text_2"]
    found = objective.exact("A bird")
    assert len(set(found.terms.values())) == 5
    assert float(objective.totals(objective.score(["A bird", "dog"]))[0]) == pytest.approx(
        found.value, abs=1e-4
    )


def test_what_is_refused(judge: Any, model: Callable[..., Any], tmp_path: Path, photos: Any) -> None:
    loaded = judge()
    for empty in ("", "  ", ["dog", ""]):
        with pytest.raises(TextError, match=r"target text .* is empty; give at least one word"):
            TextSimilarity(loaded, empty)
    with pytest.raises(ConfigError, match="target text: none given"):
        TextSimilarity(loaded, [])
    with pytest.raises(TextError, match="the model reads at most"):
        TextSimilarity(loaded, "dog cat " * 60)
    with pytest.raises(TextError, match="the model reads at most"):
        TextSimilarity(loaded, "dog").exact("dog cat " * 60)
    for other, kind in (("gpt2", "causal-lm"), ("bert", "classifier")):
        with pytest.raises(ModelError, match=f"of kind sentence-encoder or image-text; .* is of kind {kind}"):
            TextSimilarity(model(other), "dog")
    with pytest.raises(ConfigError, match="image: none given"):
        ImageSimilarity(model("clip"), [])
    with pytest.raises(ImageError, match="no such file"):
        ImageSimilarity(model("clip"), [photos[0], tmp_path / "b.png"])
