"""The embedded models: what ships is what was measured."""

from pathlib import Path

import pytest

import promptfuse as pf
from promptfuse.models import EMBEDDED, CausalLM, ImageTextModel, SequenceClassifier

PHOTOS = Path(__file__).parent.parent.parent / "examples" / "photos"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mini-lm", CausalLM), ("mini-clip", ImageTextModel), ("mini-tone", SequenceClassifier)],
)
def test_loads_by_name_and_by_folder_alike(name, kind):
    by_name, by_folder = pf.load_model(name), pf.load_model(EMBEDDED[name])
    assert isinstance(by_name, kind)
    assert by_name.fingerprint == by_folder.fingerprint
    assert repr(by_name) == f"{kind.__name__}('{name}')"
    assert (EMBEDDED[name] / "README.md").read_text(encoding="utf-8").count("Figures") == 1


def test_all_three_weigh_at_most_40_megabytes():
    files = [path for folder in EMBEDDED.values() for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000
    assert {path.suffix for path in files} <= {".json", ".md", ".safetensors"}


def test_the_three_tokenizers_are_of_three_families():
    words = {name: pf.load_model(name).tokenizer.tokenize(" Snowboarders") for name in EMBEDDED}
    assert words["mini-lm"][0].startswith("Ġ")
    assert words["mini-clip"][-1].endswith("</w>")
    assert words["mini-tone"][0].startswith("snow")


def test_the_language_model_prefers_english():
    lm = pf.Fluency(pf.load_model("mini-lm"))
    good = ["A dog runs through the grass.", "Two children are playing on the beach."]
    bad = ["Grass dog the through runs a.", "The on playing two beach are children."]
    for one, other in zip(good, bad, strict=True):
        assert lm.exact(one) < lm.exact(other) - 1


@pytest.mark.parametrize(
    ("photo", "right", "wrong"),
    [
        ("golden_retriever", "a photo of a dog", "a photo of a bus"),
        ("horses", "horses on the grass", "a cup of coffee"),
        ("cat", "a photo of a cat", "people playing soccer"),
        ("mountain_path", "a mountain", "a dog"),
        ("hot_air_balloon", "a balloon in the sky", "a man on a horse"),
    ],
)
def test_the_image_text_model_knows_what_is_in_a_photo(photo, right, wrong):
    term = pf.ImageSimilarity(pf.load_model("mini-clip"), PHOTOS / f"{photo}.jpg")
    assert term.exact(right) < term.exact(wrong) - 0.1


def test_the_classifier_knows_opinions_in_reviews_and_captions():
    tone = pf.ClassProbability(pf.load_model("mini-tone"), "positive")
    for good, bad in (
        ("a gripping , beautifully acted film", "a dull , lifeless mess"),
        ("A happy dog plays in the lovely garden.", "A sad dog lies in the filthy garden."),
    ):
        assert tone.exact(good) < 0.69 < tone.exact(bad)
