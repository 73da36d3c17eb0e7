import json
import math
from pathlib import Path

import pytest
import torch

import promptfuse as pf
from promptfuse.search.hypothesis import Hypothesis
from promptfuse.search.pareto import pareto_front

PHOTOS = Path(__file__).parent.parent.parent / "examples" / "photos"


@pytest.fixture(scope="module")
def captioner() -> pf.Captioner:
    captioner = pf.Captioner("mini")
    captioner.load("positive")
    return captioner


def small_search(captioner: pf.Captioner, photo: str = "golden_retriever", **settings) -> pf.Search:
    return captioner.search(PHOTOS / f"{photo}.jpg", **{"steps": 5, "beams": 3, "candidates": 6} | settings)


@pytest.mark.slow
@pytest.mark.parametrize("photo", sorted(path.stem for path in PHOTOS.glob("*.jpg")))
def test_reported_value_is_that_of_the_string_from_scratch(captioner, photo):
    sentiment = "positive" if len(photo) % 2 else None
    search = small_search(captioner, photo, sentiment=sentiment, steps=8)
    result = search.run()
    again = search.objective.exact(result.text)
    assert result.value == pytest.approx(again.value, abs=1e-4)
    assert result.terms == pytest.approx(again.terms, abs=1e-4)
    # And so is every value that the search went by, the shortcut for the fluency included.
    for step in result.history:
        for beam in step.beams:
            assert beam.value == pytest.approx(search.objective.exact(beam.text).value, abs=1e-4)
            assert list(beam.ids) == search.objective.primary.plain_ids([beam.text])[0]


def test_same_seed_same_caption(captioner):
    first, second = small_search(captioner).run(), small_search(captioner).run()
    assert first.text == second.text
    assert first.value == second.value
    assert [step.best.text for step in first.history] == [step.best.text for step in second.history]


def test_batch_size_changes_nothing(captioner):
    texts = []
    for batch_size in (1, 7, 256):
        search = small_search(captioner)
        search.batch_size = batch_size
        texts.append([[beam.text for beam in step.beams] for step in search])
    assert texts[0] == texts[1] == texts[2]


def test_random_proposals_follow_the_seed(captioner):
    method = pf.RandomAppend(6)
    runs = [small_search(captioner, method=method, seed=seed, steps=3).run() for seed in (1, 1, 2)]
    assert runs[0].history[-1].beams == runs[1].history[-1].beams
    assert runs[0].history[-1].beams != runs[2].history[-1].beams


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize("method", [None, pf.RandomAppend(6), pf.AutoDAN(6, ridge=3.0)])
def test_resumed_search_ends_in_the_same_result(captioner, stop, method):
    whole = small_search(captioner, method=method, sentiment="negative").run()
    broken = small_search(captioner, method=method, sentiment="negative")
    for _ in range(stop):
        broken.step()
    saved = json.dumps(broken.state_dict())
    resumed = small_search(captioner, method=method, sentiment="negative")
    resumed.load_state_dict(json.loads(saved))
    result = resumed.run()
    assert (result.text, result.value) == (whole.text, whole.value)
    assert result.exact_evaluations == whole.exact_evaluations
    assert [step.beams for step in result.history] == [step.beams for step in whole.history]
    assert result.pareto_front == whole.pareto_front


def test_resuming_under_other_settings_is_refused(captioner):
    saved = small_search(captioner).state_dict()
    with pytest.raises(pf.ConfigError, match=r"has method\.candidates \d+, not 3"):
        small_search(captioner, method=pf.AutoDAN(candidates=3)).load_state_dict(saved)


@pytest.mark.slow
def test_one_step_over_the_whole_vocabulary_finds_the_best_token(captioner):
    """A known answer: with every token as a candidate, one step is an exhaustive search."""
    prefix = "A dog runs on the"
    objective = captioner.objective(PHOTOS / "golden_retriever.jpg")
    lm = objective.primary
    method = pf.AutoDAN(candidates=len(lm.embedding_table), transport="none")
    search = pf.Search(objective, method, pf.BeamSearch(1), prefix=prefix, glue=True, steps=1)
    found = search.run()
    texts = []
    for token in range(len(lm.tokenizer)):
        text = lm.tokenizer.decode([*lm.plain_ids([prefix])[0], token])
        appended = lm.plain_ids([text])[0][:-1] == lm.plain_ids([prefix])[0]
        permitted = search.constraints.allows(text) and search.constraints.allows_token(text)
        if appended and permitted and token not in lm.tokenizer.all_special_ids:
            texts.append(text)
    values = objective.totals(objective.score(texts))
    complete = [index for index, text in enumerate(texts) if text.endswith((".", "!", "?"))]
    best = min(complete, key=lambda index: float(values[index]))
    assert search.exact_evaluations == len(texts)
    assert found.text == texts[best]
    assert search.beams[0].value == pytest.approx(
        min(float(values[index]) for index in range(len(texts)) if index not in complete), abs=1e-4
    )


def test_callbacks_see_every_step(captioner):
    seen = []
    search = small_search(
        captioner, callbacks=[lambda search, step: seen.append((len(search.history), step.number))]
    )
    search.run()
    assert seen == [(number, number) for number in range(1, len(search.history) + 1)]


def test_exact_evaluations_are_counted(captioner, monkeypatch):
    search = small_search(captioner)
    counted = []
    score = search.objective.score
    monkeypatch.setattr(
        search.objective,
        "score",
        lambda texts, **options: counted.append(len(texts)) or score(texts, **options),
    )
    search.run()
    assert sum(counted) == search.exact_evaluations == search.history[-1].exact_evaluations
    assert max(counted) <= 3 * 6


def test_finished_texts_end_and_the_best_is_returned(captioner):
    search = small_search(captioner, steps=12)
    result = search.run()
    assert result.complete
    assert result.value == pytest.approx(min(item.value for item in search.finished.values()), abs=1e-4)
    assert all(item.complete for item in result.pareto_front)


def test_results_are_json(captioner):
    result = small_search(captioner, steps=2).run()
    plain = json.loads(result.to_json())
    assert plain["text"] == result.text
    assert plain["models"]["image"]["fingerprint"] == captioner.model("image_text").fingerprint
    assert plain["config"]["method"]["name"] == "AutoDAN"
    assert plain["versions"]["promptfuse"] == pf.__version__


@pytest.mark.slow
def test_sentiment_moves_the_classifier(captioner):
    objective = captioner.objective(PHOTOS / "golden_retriever.jpg", "positive")
    losses = {
        sentiment: objective.exact(
            small_search(captioner, sentiment=sentiment, steps=10, candidates=12).run().text
        )
        for sentiment in ("positive", "negative")
    }
    assert losses["positive"].terms["sentiment"] < losses["negative"].terms["sentiment"]


def test_settings_out_of_range_are_refused(captioner):
    for settings in ({"steps": 0}, {"beams": 0}, {"candidates": 0}):
        with pytest.raises(pf.ConfigError, match="must be at least 1"):
            small_search(captioner, **settings)
    with pytest.raises(pf.ConfigError, match=r"lexical, t-product.*effects, auto or none"):
        pf.AutoDAN(transport="teleport")  # type: ignore[arg-type]


def test_an_objective_without_a_language_model_cannot_be_searched(captioner):
    clip = captioner.model("image_text")
    objective = pf.Objective(pf.ImageSimilarity(clip, PHOTOS / "cat.jpg"))
    with pytest.raises(pf.ConfigError, match="add a Fluency term"):
        pf.Search(objective)


def test_pareto_front_against_brute_force():
    generator = torch.Generator().manual_seed(0)
    points = torch.randint(0, 6, (60, 3), generator=generator).tolist()
    items = [
        Hypothesis(
            str(index), (index,), 0.0, float(sum(point)), dict(zip("abc", map(float, point), strict=True))
        )
        for index, point in enumerate(points)
    ]
    weights = {"a": 1.0, "b": 2.0, "c": -1.0}
    signed = {item.text: (item.terms["a"], item.terms["b"], -item.terms["c"]) for item in items}

    def beaten(text: str) -> bool:
        own = signed[text]
        return any(
            all(x <= y for x, y in zip(other, own, strict=True)) and other != own for other in signed.values()
        )

    expected = {signed[item.text] for item in items if not beaten(item.text)}
    front = pareto_front(items, weights)
    assert {signed[item.text] for item in front} == expected
    assert len(front) == len(expected)
    assert [item.value for item in front] == sorted(item.value for item in front)


def test_constraints():
    rules = pf.Constraints(banned=("cat",))
    assert rules.allows("A dog runs on the sand.")
    assert not rules.allows("A Cat runs.")
    assert not rules.allows("the the dog")
    assert not rules.allows("a dog and a dog run")
    assert not rules.allows_token("é")
    assert not rules.allows_token("\n")
    assert pf.Constraints(ascii=False).allows_token("é")
    assert pf.Constraints(no_repeat_ngram=0).allows("a dog and a dog run")


def test_gain_is_the_regression_slope():
    from promptfuse.search.methods.guidance import PRIOR_OBSERVATIONS, Gain

    gain = Gain(0.2, adapt=True)
    assert gain.value == 0.2
    x = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    gain.observe(x, 0.6 * x)
    assert gain.value == pytest.approx(
        (0.6 * 5000 + 0.2 * PRIOR_OBSERVATIONS) / (5000 + PRIOR_OBSERVATIONS), rel=1e-3
    )
    gain.observe(x, -9 * x)
    assert gain.value == 0.0
    assert not math.isnan(Gain(0.2, adapt=False).value)


def test_a_text_that_outgrows_a_model_is_dropped_and_nothing_is_lost(captioner):
    """mini-clip takes 48 tokens; the search must end at that length and keep what it has."""
    prefix = " ".join(["A dog and a cat near the house with two men"] * 4)
    free = pf.Constraints(no_repeat_ngram=0)
    objective = captioner.objective(PHOTOS / "cat.jpg")
    clip = objective.terms["image"].model
    search = pf.Search(
        objective, pf.AutoDAN(6), pf.BeamSearch(2), prefix=prefix, steps=30, patience=30, constraints=free
    )
    result = search.run()
    assert len(prefix) < len(result.text)
    assert len(clip.token_rows([result.text])[0][0]) <= clip.max_length
    assert len(search.history) < 30
    assert result.value == pytest.approx(objective.exact(result.text).value, abs=1e-4)


def test_the_search_ends_where_the_language_model_has_no_room(captioner):
    lm = captioner.model("lm")
    objective = pf.Objective(pf.Fluency(lm))
    prefix = "A dog and a cat" * 25
    length = len(lm.plain_ids([prefix])[0])
    assert 100 < length < 127
    free = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False)
    method = pf.AutoDAN(4, transport="none")
    search = pf.Search(
        objective, method, pf.BeamSearch(1), prefix=prefix, steps=60, patience=60, constraints=free
    )
    result = search.run()
    assert len(lm.plain_ids([result.text])[0]) <= 127


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("a dog and a dog", "breaks the constraints"),
        ("a dog\nand", "line break"),
        ("<|endoftext|>A man", "special token"),
    ],
)
def test_prefixes_that_cannot_begin_a_text(captioner, prefix, reason):
    with pytest.raises(pf.TextError, match=reason):
        small_search(captioner, prefix=prefix)


def test_blanks_around_the_prefix_change_nothing(captioner):
    spaced, plain = (small_search(captioner, prefix=prefix).run() for prefix in (" A dog ", "A dog"))
    assert spaced.text == plain.text


def test_constraints_that_forbid_everything_are_named(captioner):
    search = small_search(captioner, prefix="a dog")
    search.proposer.allowed[:] = False
    with pytest.raises(pf.ConfigError, match="no token can follow 'a dog'"):
        search.run()


def test_resuming_with_another_photo_weight_or_seed_is_refused(captioner):
    saved = json.loads(json.dumps(small_search(captioner).state_dict()))
    for other, named in (
        (small_search(captioner, "cat"), r"objective\.image\.photos \["),
        (small_search(captioner, weights={"image": 3.0}), r"objective\.image\.weight 5\.0, not 3\.0"),
        (small_search(captioner, seed=5), "seed 0, not 5"),
    ):
        with pytest.raises(pf.ConfigError, match=f"the saved search has {named}"):
            other.load_state_dict(saved)
    small_search(captioner).load_state_dict(saved)
