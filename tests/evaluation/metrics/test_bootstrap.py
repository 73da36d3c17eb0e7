from __future__ import annotations

import math
import time

import numpy as np
import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics import Captions
from promptfuse.evaluation.metrics.base import Pairs, Whole, mean
from promptfuse.evaluation.metrics.bootstrap import difference, draw_counts, intervals
from promptfuse.evaluation.metrics.coco import Bleu, CiderD


def column(values, name="x"):
    return mean(name, name, "higher", values)


def test_counts_are_of_draws_with_replacement():
    counts = np.concatenate(list(draw_counts(7, 50, seed=1)))
    assert counts.shape == (50, 7)
    assert (counts.sum(1) == 7).all()
    assert counts.max() > 1
    assert (counts == 0).any()


def test_counts_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    whole = np.concatenate(list(draw_counts(9, 20, seed=3)))
    monkeypatch.setattr("promptfuse.evaluation.metrics.bootstrap._CELLS", 20)
    assert (np.concatenate(list(draw_counts(9, 20, seed=3))) == whole).all()


def test_the_interval_is_that_of_the_normal_theory():
    values = np.random.default_rng(0).normal(5, 2, 400)
    (found,) = intervals([column(values)], resamples=4000)
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.02)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.02)


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(7)
    held = 0
    for seed in range(300):
        # Skewed, as perplexities are.
        (found,) = intervals([column(generator.exponential(3, 80))], resamples=300, seed=seed)
        held += found.low <= 3 <= found.high
    assert 0.89 <= held / 300 <= 0.98


def test_values_that_are_missing_do_not_count():
    found = column([1.0, math.nan, 3.0])
    assert found.value == 2
    assert found.n == 2
    assert found.estimate(np.array([[0.0, 5.0, 2.0], [1, 0, 3]])).tolist() == [3, 2.5]
    assert math.isnan(found.estimate(np.array([[0.0, 4.0, 0.0]]))[0])


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (intervals([column(values)], seed=seed)[0] for seed in (4, 4, 5))
    assert first == again
    assert first != other


def test_no_resamples_no_interval():
    (found,) = intervals([column([1.0, 2.0])], resamples=0)
    assert found.value == 1.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_paired_difference_is_narrower_than_its_systems():
    generator = np.random.default_rng(2)
    hard = generator.normal(0, 5, 300)
    first, second = column(hard + 1 + generator.normal(0, 0.5, 300)), column(hard)
    found = difference(first, second)
    alone = intervals([first])[0]
    assert found.value == pytest.approx(1, abs=0.1)
    assert found.low > 0.8
    assert found.high - found.low < (alone.high - alone.low) / 5
    assert found.p_value == pytest.approx(2 / 1001)


def test_equal_systems_do_not_differ():
    found = difference(column([1.0, 2.0, 5.0]), column([1.0, 2.0, 5.0]))
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_the_difference_changes_its_sign_with_the_order():
    generator = np.random.default_rng(3)
    first, second = column(generator.normal(size=60)), column(generator.normal(size=60))
    one, other = difference(first, second), difference(second, first)
    assert one.value == -other.value
    assert one.low == pytest.approx(-other.high)
    assert one.p_value == other.p_value


def test_resamples_without_a_value_are_no_evidence():
    """A p-value counts the resamples that have a difference, and no others."""
    rare = column([1.0, math.nan, math.nan, math.nan])
    drawn = np.concatenate(list(draw_counts(4, 1000, seed=0)))[:, 0] > 0
    assert 600 < drawn.sum() < 750
    found = difference(rare, column([0.0, 0.0, 0.0, 0.0]))
    assert found.p_value == 2 / (drawn.sum() + 1)
    assert (found.low, found.high) == (1, 1)
    nothing = difference(column([math.nan] * 4), column([0.0] * 4))
    assert math.isnan(nothing.p_value)


def test_systems_on_different_photos_are_not_compared():
    with pytest.raises(ConfigError, match="3 and 2 photos"):
        difference(column([1.0, 2.0, 3.0]), column([1.0, 2.0]))


def test_resampled_bleu_is_that_of_the_repeated_captions(made_up):
    predictions, references = made_up
    ids = list(predictions)[:40]
    captions = Captions(ids, [predictions[i] for i in ids], [references[i] for i in ids], tokenizer="python")
    counts = next(draw_counts(40, 3, seed=0))
    columns = Bleu().measure(captions)
    for row in counts:
        again = [index for index, count in enumerate(row) for _ in range(int(count))]
        repeated = Captions(
            [str(number) for number in range(40)],
            [captions.texts[index] for index in again],
            [captions.references[index] for index in again],
            tokenizer="python",
        )
        for found, whole in zip(columns, Bleu().measure(repeated), strict=True):
            assert found.estimate(row[None])[0] == pytest.approx(whole.value, abs=1e-12)


def test_resampled_pairs_leave_out_a_photo_with_itself():
    matrix = np.random.default_rng(0).random((4, 4))
    found = Pairs("x", "x", "lower", np.zeros(6), np.array([0, 2, 3, 5]), matrix)
    counts = np.array([[1.0, 0, 2, 0, 1, 2]])
    drawn = [0, 1, 1, 3, 3]
    pairs = [
        matrix[a, b]
        for i, a in enumerate(drawn)
        for j, b in enumerate(drawn)
        if i != j and a != b  # A photo that was drawn twice is no pair.
    ]
    assert found.estimate(counts)[0] == pytest.approx(np.mean(pairs))


def test_numbers_of_the_whole_set_have_no_interval():
    found = Whole("v", "v", "higher", np.full(5, math.nan), 17.0)
    (interval,) = intervals([found])
    assert interval.value == 17
    assert math.isnan(interval.low)
    assert found.n == 5


def test_500_photos_a_thousand_times_take_no_time(made_up):
    predictions, references = made_up
    ids = list(predictions) + [f"again {id_}" for id_ in list(predictions)[:200]]
    texts = [predictions[id_.removeprefix("again ")] for id_ in ids]
    groups = [references[id_.removeprefix("again ")] for id_ in ids]
    captions = Captions(ids, texts, groups, tokenizer="python")
    columns = [*Bleu().measure(captions), *CiderD().measure(captions)]
    start = time.process_time()
    found = intervals(columns, resamples=1000)
    assert time.process_time() - start < 5
    assert all(one.low < one.value < one.high for one in found)
