import pytest
import torch

from promptfuse.adapters.diagnostics import Figures, ranks, recall, spearman
from promptfuse.adapters.diagnostics.fidelity import corrected_figures


def test_ranks_by_hand():
    assert ranks(torch.tensor([3.0, 1.0, 2.0])).tolist() == [3, 1, 2]
    assert ranks(torch.tensor([10.0, 20.0, 10.0, 5.0])).tolist() == [2.5, 4, 2.5, 1]
    assert ranks(torch.tensor([7.0] * 3)).tolist() == [2, 2, 2]


def test_nan_has_no_rank():
    with pytest.raises(ValueError, match="leave out"):
        ranks(torch.tensor([1.0, float("nan")]))


def test_spearman_by_hand():
    # Without ties: 1 - 6 sum d^2 / (n (n^2 - 1)), with d = (1, -1, 0, 2, -2).
    a, b = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), torch.tensor([20.0, 10.0, 30.0, 50.0, 40.0])
    assert spearman(a, b) == pytest.approx(1 - 6 * (1 + 1 + 0 + 1 + 1) / (5 * 24))
    # With ties: the correlation of the ranks (1.5, 1.5, 3, 4) and (1, 2, 3.5, 3.5).
    a, b = torch.tensor([1.0, 1.0, 2.0, 3.0]), torch.tensor([0.0, 5.0, 9.0, 9.0])
    x, y = [-1.0, -1.0, 0.5, 1.5], [-1.5, -0.5, 1.0, 1.0]
    products = sum(p * q for p, q in zip(x, y, strict=True))
    norms = (sum(p * p for p in x) * sum(q * q for q in y)) ** 0.5
    assert spearman(a, b) == pytest.approx(products / norms)


def test_spearman_of_a_perfect_a_reversed_and_a_constant_estimate():
    truth = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert spearman(truth.exp(), truth) == pytest.approx(1)
    assert spearman(-truth, truth) == pytest.approx(-1)
    assert spearman(torch.zeros(50), truth) == 0


def test_recall_by_hand():
    truth = torch.tensor([5.0, 0.0, 1.0, 2.0, 9.0])
    estimates = torch.tensor([0.0, 1.0, 9.0, 2.0, 3.0])
    # The true best two are 1 and 2; the estimated best are 0, 1, 3, 4, 2 in order.
    assert [recall(estimates, truth, best=2, among=k) for k in range(1, 7)] == [0, 0.5, 0.5, 0.5, 1, 1]


def test_recall_of_a_perfect_and_a_reversed_estimate():
    truth = torch.randn(300, generator=torch.Generator().manual_seed(1))
    assert recall(truth, truth, 10, 10) == 1
    assert recall(-truth, truth, 10, 256) == 0
    assert recall(-truth, truth, 10, 300) == 1


def test_figures_are_of_the_best_ten_and_their_mean_is_by_column():
    truth = torch.arange(300.0)
    perfect, reversed_ = Figures.of(truth, truth), Figures.of(-truth, truth)
    assert (perfect.spearman, perfect.recall_10_at_64, perfect.recall_10_at_256) == pytest.approx((1, 1, 1))
    assert (reversed_.spearman, reversed_.recall_10_at_64) == pytest.approx((-1, 0))
    assert reversed_.recall_10_at_256 == 0
    assert Figures.mean([perfect, reversed_]).recall_10_at_64 == 0.5
    shuffled = Figures.of(-truth, truth, order=truth)
    assert (shuffled.spearman, shuffled.recall_10_at_64) == pytest.approx((-1, 1))


def test_the_surrogate_looks_at_the_observed_candidates_first():
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(400, 5, generator=generator)
    truth = (features @ torch.randn(5, generator=generator)).double()
    estimates = truth + torch.randn(400, generator=generator, dtype=torch.float64)
    plain = Figures.of(estimates, truth)
    corrected = corrected_figures(features, estimates, truth)
    assert corrected.recall_10_at_64 == plain.recall_10_at_64
    assert corrected.recall_10_at_256 == 1
    assert corrected.spearman > 0.99 > plain.spearman
