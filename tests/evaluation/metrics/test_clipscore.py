from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from promptfuse import load_image, load_model
from promptfuse.errors import ModelError
from promptfuse.evaluation.metrics import Captions, Unavailable
from promptfuse.evaluation.metrics.clipscore import PREFIX, ClipScore, photo_features

PHOTOS = sorted((Path(__file__).parents[3] / "examples" / "photos").glob("*.jpg"))[:5]
TEXTS = ["a dog on grass", "a cat", "a long caption about some thing that is on a table near a lake", "x", ""]
REFERENCES = [["a dog", "a brown dog"], ["a car"], ["food on a table", "a plate", "a lake"], ["x"], ["a man"]]


@pytest.fixture(scope="module")
def judge():
    return load_model("mini-clip")


def captions(images=PHOTOS, references=REFERENCES, texts=TEXTS):
    return Captions([str(index) for index in range(len(texts))], texts, references, images)


def cosine(judge, text, other):
    with torch.no_grad():
        own = judge.text_features(judge.encode([PREFIX + text]))[0]
        if isinstance(other, str):
            return float(own @ judge.text_features(judge.encode([PREFIX + other]))[0])
        return float(own @ judge.image_features([load_image(other)])[0])


def test_is_the_papers_formula(judge):
    plain, with_references = ClipScore(judge).measure(captions())
    for index, (text, photo, several) in enumerate(zip(TEXTS, PHOTOS, REFERENCES, strict=True)):
        own = 2.5 * max(cosine(judge, text, photo), 0)
        assert plain.values[index] == pytest.approx(own, abs=1e-4)
        nearest = max(0, *(cosine(judge, text, reference) for reference in several))
        both = 2 / (1 / own + 1 / nearest) if own and nearest else 0
        assert with_references.values[index] == pytest.approx(both, abs=1e-4)
    assert plain.value == pytest.approx(plain.values.mean())
    assert plain.value != pytest.approx(0)


def test_any_batch_size_gives_the_same(judge):
    whole, parts = (ClipScore(judge, batch_size=size).measure(captions()) for size in (64, 2))
    for one, other in zip(whole, parts, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-4)


def test_the_prefix_can_be_changed(judge):
    with_prefix, without = (ClipScore(judge, prefix=prefix).measure(captions())[0] for prefix in (PREFIX, ""))
    assert with_prefix.values != pytest.approx(without.values, abs=1e-3)


def test_the_right_photo_scores_higher(judge):
    texts = [photo.stem.replace("_", " ") for photo in PHOTOS]
    right = ClipScore(judge).measure(captions(texts=texts))[0].value
    wrong = ClipScore(judge).measure(captions(texts=texts, images=[*PHOTOS[1:], PHOTOS[0]]))[0].value
    assert right > wrong


def test_a_text_against_itself_is_one(judge):
    found = ClipScore(judge).measure(captions(references=[[text] for text in TEXTS]))[1]
    values = ClipScore(judge).measure(captions())[0].values
    assert found.values == pytest.approx(2 * values / (values + 1), abs=1e-4)


def test_photos_that_cannot_be_read_are_left_out(judge, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    images = [PHOTOS[0], str(broken), None, Image.open(PHOTOS[3]), "no/such.jpg"]
    plain, with_references = ClipScore(judge).measure(captions(images=images))
    images[3].close()
    assert np.isfinite(plain.values).tolist() == [True, False, False, True, False]
    assert plain.n == with_references.n == 2
    assert "3 photos left out" in plain.note
    assert "broken.jpg" in plain.note


def test_features_can_be_shared(judge):
    features, reasons = photo_features(judge, PHOTOS)
    assert reasons == []
    shared = ClipScore(judge).measure(captions(images=features))[0]
    assert shared.values == pytest.approx(ClipScore(judge).measure(captions())[0].values, abs=1e-6)


def test_long_captions_are_cut(judge):
    long = "a dog " * 200
    texts = [long, *TEXTS[1:]]
    references = [["a cat"], ["a cat", long], *REFERENCES[2:]]
    found, both = ClipScore(judge).measure(captions(texts=texts, references=references))
    assert f"1 caption was cut to the {judge.max_length} tokens" in found.note
    assert "1 reference was cut" in both.note
    assert (found.cut, both.cut) == ({0}, {0, 1})
    # What is behind the cut does not count.
    again = ClipScore(judge).measure(captions(texts=[long + "and a cat", *TEXTS[1:]]))[0]
    assert found.values == pytest.approx(again.values, abs=1e-6)
    assert found.values[0] > 0


def test_without_photos_or_references(judge):
    assert all(isinstance(one, Unavailable) for one in ClipScore(judge).measure(captions(images=None)))
    plain, with_references = ClipScore(judge).measure(captions(references=[[]] * 5))
    assert plain.n == 5
    assert "no references" in with_references.reason


def test_another_kind_of_model():
    with pytest.raises(ModelError, match="CLIPScore needs a model of kind image-text"):
        ClipScore(load_model("mini-tone"))
