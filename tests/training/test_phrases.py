"""Noun phrases that captions have often, or that belong together."""

from training.phrases import OFTEN, SOMETIMES, phrases_of

FILLER = ["The ferry and the wheels turn on hot days in the air."] * 50


def test_what_stands_often_between_an_article_and_the_end_of_its_phrase():
    captions = ["A dog on a hill."] * OFTEN + ["A cat is in a tree."] * (OFTEN - 1) + FILLER
    assert phrases_of(captions, []) == ["dog", "hill"]


def test_words_that_belong_together_need_not_be_often():
    captions = ["A ferris wheel in the park."] * SOMETIMES + ["A hot wheel in the park."] * SOMETIMES
    captions += ["A hot day on a wheel."] * 50 + FILLER
    assert "ferris wheel" in phrases_of(captions, [])
    assert "hot wheel" not in phrases_of(captions, [])


def test_verbs_and_mere_adjectives_are_no_nouns():
    captions = [
        "A man standing on a rock.", "A red and a white.", "A dog runs in a fenced on.",
        "A building in a ring.",
    ] * OFTEN  # fmt: skip
    assert phrases_of(captions, []) == ["building", "man", "ring", "rock"]


def test_names_of_one_or_two_words_are_added():
    assert phrases_of([], ["goldfish", "great white shark", "fire truck"]) == ["fire truck", "goldfish"]
