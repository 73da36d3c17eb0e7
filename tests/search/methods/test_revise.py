"""Edits by what a text lacks: improvements only, resumable, and what is known is what is exact."""

from __future__ import annotations

import pytest

import promptfuse as pf
from tests.conftest import lexicon_of

TARGET = "A brown dog runs on the beach."


@pytest.fixture(scope="module", autouse=True)
def words():
    with lexicon_of(6000):
        yield


@pytest.fixture(scope="module")
def objective(words):
    lm, clip = pf.load_model("mini-lm"), pf.load_model("mini-clip")
    return pf.Objective(pf.Fluency(lm), pf.TextSimilarity(clip, TARGET, weight=40.0))


def test_words_that_are_lacking_are_found(objective):
    method = pf.Revise(candidates=40, init="A man walks on the street.")
    search = pf.Search(objective, method, pf.BeamSearch(2), steps=12)
    values = [step.best.value for step in search]
    assert values == sorted(values, reverse=True)
    result = search.result()
    assert result.value < objective.exact("A man walks on the street.").value - 5
    assert "dog" in result.text.lower()
    # The losses that the method handed over are those of a fresh reading.
    for beam in search.beams:
        assert beam.terms["text"] == pytest.approx(objective.terms["text"].exact(beam.text), abs=1e-5)


def test_it_works_with_a_photo(objective):
    lm, clip = objective.primary, objective.terms["text"].model
    photo = pf.ImageSimilarity(clip, "examples/photos/golden_retriever.jpg", weight=40.0)
    seen = pf.Objective(pf.Fluency(lm), photo)
    result = pf.Search(seen, pf.Revise(24, init="A man on the street."), steps=6).run()
    assert result.value < seen.exact("A man on the street.").value


@pytest.mark.parametrize("moves", [("replace",), ("insert",), ("delete",), ("move",)])
def test_each_move_keeps_the_prefix_and_the_length(objective, moves):
    method = pf.Revise(16, moves=moves, init="a dog is on a big beach", length=14)
    search = pf.Search(objective, method, pf.BeamSearch(3), prefix="Today I saw", steps=3)
    for step in search:
        for beam in step.beams:
            assert beam.text.startswith("Today I saw ")
            assert len(beam.ids) <= 14
    start = "Today I saw a dog is on a big beach".split()
    for beam in search.beams:
        words = beam.text.split()
        if moves == ("move",):
            assert sorted(words) == sorted(start)
        if moves == ("delete",):
            assert set(words) <= set(start)


def test_a_resumed_search_proposes_the_same_texts(objective, tmp_path):
    def search(steps, folder=None):
        method = pf.Revise(16, init="A man walks on the street.")
        return pf.Search(objective, method, pf.BeamSearch(2), steps=steps, run_dir=folder)

    whole = search(6).run()
    search(3, tmp_path).run()
    resumed = search(6, tmp_path).run()
    assert resumed.text == whole.text
    assert resumed.value == pytest.approx(whole.value, abs=1e-6)


def test_candidates_count_for_all_parents_together(objective):
    search = pf.Search(
        objective,
        pf.Chain(pf.AutoDAN(4, transport="none"), pf.Revise(20, finalists=20, parents=3), steps=(5, 2)),
        pf.BeamSearch(3),
        complete=False,
    )
    for step in search:
        if step.stage == 2:
            assert step.proposed <= 20


def test_settings_out_of_range_are_refused():
    for settings, problem in (
        ({"candidates": 0}, "candidates"),
        ({"moves": ("jump",)}, "not known moves"),
        ({"word_prior": 0}, "word_prior"),
        ({"length": 0}, "length"),
    ):
        with pytest.raises(pf.ConfigError, match=problem):
            pf.Revise(**settings)  # type: ignore[arg-type]


def test_without_a_text_to_begin_with_it_says_so(objective):
    with pytest.raises(pf.ConfigError, match="Revise has no text to begin with"):
        pf.Search(objective, pf.Revise())


def test_texts_that_outgrow_a_model_are_not_proposed(objective):
    clip = objective.terms["text"].model
    start = "a man walks " * 15  # 47 tokens with those that clip puts around a text, which reads 48.
    method = pf.Revise(16, moves=("insert",), init=start.strip())
    constraints = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False)
    search = pf.Search(objective, method, pf.BeamSearch(2), steps=2, constraints=constraints)
    for step in search:
        for beam in step.beams:
            assert len(clip.encode_rows([beam.text])[0][0]) <= clip.max_length
