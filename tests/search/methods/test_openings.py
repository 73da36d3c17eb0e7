"""Texts that begin with a noun phrase that fits the photo."""

from pathlib import Path

import pytest
import torch

import promptfuse as pf
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.openings import noun_phrases, opened, openings

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"


@pytest.fixture(scope="module")
def captioner() -> pf.Captioner:
    return pf.Captioner("mini")


def setting_of(objective: pf.Objective, prefix: str = "", **rules) -> SearchContext:
    return SearchContext(objective, pf.Constraints(**rules), prefix, 4, 0)


def test_the_list_is_of_plain_phrases():
    phrases = noun_phrases()
    assert len(phrases) > 1000
    assert list(phrases) == sorted(set(phrases))
    assert all(phrase == phrase.strip().lower() and phrase for phrase in phrases)
    assert {"balloon", "dog", "group of people"} <= set(phrases)


@pytest.mark.parametrize(
    ("prefix", "dog", "apple"),
    [
        ("", "A dog", "An apple"),
        ("A photo of", "A photo of a dog", "A photo of an apple"),
        ("A photo of the", "A photo of the dog", "A photo of the apple"),
        ("Photo:", "Photo: a dog", "Photo: an apple"),
        ("(", "(a dog", "(an apple"),
    ],
)
def test_the_article_fits(prefix, dog, apple):
    texts = dict(zip(noun_phrases(), opened(prefix), strict=True))
    assert (texts["dog"], texts["apple"]) == (dog, apple)


@pytest.mark.slow
def test_they_are_those_that_score_best_one_by_one(captioner):
    objective = captioner.objective(PHOTOS / "cat.jpg")
    image = objective.terms["image"]
    found = openings(setting_of(objective), 5)
    losses = {text: image.exact(text) for text in opened("")}
    best = sorted(losses, key=losses.__getitem__)[:5]
    assert [losses[item.text] for item in found] == pytest.approx([losses[text] for text in best], abs=1e-4)
    assert {item.parent for item in found} == {0}
    for item in found:
        assert captioner.model("lm").decode([item.ids]) == [item.text]
        with torch.no_grad():
            nll, _ = captioner.model("lm").nll(captioner.model("lm").encode([item.text]))
        assert item.nll == pytest.approx(float(nll), abs=1e-4)


def test_a_phrase_that_breaks_a_rule_makes_room_for_the_next(captioner):
    objective = captioner.objective(PHOTOS / "cat.jpg")
    free = [item.text for item in openings(setting_of(objective), 6)]
    word = free[0].split()[-1]
    ruled = [item.text for item in openings(setting_of(objective, banned=(word,)), 5)]
    assert len(ruled) == 5
    assert not any(word in text.split() for text in ruled)
    assert set(ruled) >= {text for text in free[:5] if word not in text.split()}


def test_without_a_similarity_there_are_none(captioner):
    lm, tone = captioner.model("lm"), captioner.model("sentiment")
    objective = pf.Objective(pf.Fluency(lm), pf.ClassProbability(tone, "positive"))
    assert openings(setting_of(objective), 5) == []


@pytest.mark.parametrize("words", [38, 42, 110])
def test_behind_a_prefix_that_leaves_no_room_there_are_none(captioner, words):
    objective = captioner.objective(PHOTOS / "cat.jpg")
    prefix = " ".join(["a red dog and a blue cat or two"] * 20).split()[:words]
    setting = setting_of(objective, " ".join(prefix), no_repeat_ngram=0)
    assert (openings(setting, 5) == []) == (words > 38)


def test_the_search_scores_them_in_its_first_step_alone(captioner):
    objective = captioner.objective(PHOTOS / "cat.jpg")
    plain = pf.Search(objective, pf.AutoDAN(4, subtokens=1), pf.BeamSearch(10), steps=2)
    search = pf.Search(objective, pf.AutoDAN(4, subtokens=1, openings=8), pf.BeamSearch(10), steps=2)
    few, many = ([step.proposed for step in each] for each in (plain, search))
    assert (few, many) == ([4, 16], [10, 40])
    words, first = ({beam.text for beam in each.history[0].beams} for each in (plain, search))
    assert words < first
    for beam in search.history[0].beams:
        exact = objective.exact(beam.text)
        assert beam.value == pytest.approx(exact.value, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "A photo of"])
def test_the_same_with_nothing_remembered_and_when_resumed(captioner, prefix, tmp_path):
    def search(**more) -> pf.Search:
        return pf.Search(
            captioner.objective(PHOTOS / "cat.jpg"),
            pf.AutoDAN(4, subtokens=1, openings=8),
            pf.BeamSearch(8),
            prefix=prefix,
            steps=6,
            **more,
        )

    usual = search().run()
    assert usual.text.startswith(prefix)
    exact, single = search(exact=True).run(), search(batch_size=1).run()
    assert exact.text == single.text == usual.text
    assert exact.value == pytest.approx(usual.value, abs=1e-4)
    begun = search(run_dir=tmp_path / "run")
    begun.step()
    assert search(run_dir=tmp_path / "run").run().text == usual.text


def test_a_text_to_be_like_opens_too():
    lm, clip = pf.load_model("mini-lm"), pf.load_model("mini-clip")
    objective = pf.Objective(pf.Fluency(lm), pf.TextSimilarity(clip, "Two cats on a sofa.", weight=5))
    found = [item.text for item in openings(setting_of(objective), 10)]
    assert any("cat" in text.split() for text in found)


def test_a_wrong_number_is_refused():
    with pytest.raises(pf.ConfigError, match="openings: must be at least 0, got -1"):
        pf.AutoDAN(openings=-1)
