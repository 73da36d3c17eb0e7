import pytest
import torch

from promptfuse.adapters.diagnostics import ridge_surrogate


def data(seed=0, count=60, d=6, noise=0.0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, d, generator=generator, dtype=torch.float64)
    estimates = torch.randn(count, generator=generator, dtype=torch.float64)
    truth = 3 + 0.5 * estimates + features @ torch.randn(d, generator=generator, dtype=torch.float64)
    return features, estimates, truth + noise * torch.randn(count, generator=generator, dtype=torch.float64)


def test_a_linear_truth_is_found():
    features, estimates, truth = data()
    observed = torch.arange(0, 60, 2)
    predicted = ridge_surrogate(features, estimates, observed, truth[observed])
    torch.testing.assert_close(predicted, truth, rtol=0, atol=0.02)


def test_where_the_estimates_are_right_nothing_is_changed():
    features, estimates, _ = data()
    observed = torch.arange(20)
    predicted = ridge_surrogate(features, estimates, observed, 2 * estimates[observed] - 1)
    torch.testing.assert_close(predicted, 2 * estimates - 1, rtol=0, atol=1e-8)


@pytest.mark.parametrize("ridge", [1e-2, 1.0])
def test_an_observed_loss_does_not_predict_itself(monkeypatch, ridge):
    """Its prediction is that of a fit on all others, with the same absolute penalty."""
    features, estimates, truth = data(noise=1.0)
    observed, one = torch.tensor([3, 8, 20, 33, 41, 50, 55, 59]), 3
    centred = features - features.mean(0)
    norms = centred.square().sum(1)
    rest = torch.cat([observed[:one], observed[one + 1 :]])
    monkeypatch.setattr("promptfuse.adapters.diagnostics.surrogate._RIDGES", (ridge,))
    whole = ridge_surrogate(features, estimates, observed, truth[observed])
    same = ridge * float(norms[observed].mean() / norms[rest].mean())
    monkeypatch.setattr("promptfuse.adapters.diagnostics.surrogate._RIDGES", (same,))
    without = ridge_surrogate(features, estimates, rest, truth[rest])
    torch.testing.assert_close(whole[33], without[33])


def test_estimates_that_are_all_equal_do_no_harm():
    features, _, truth = data()
    observed = torch.arange(30)
    predicted = ridge_surrogate(features, torch.ones(60), observed, truth[observed])
    assert bool(predicted.isfinite().all())


def test_too_few_observations_are_refused():
    features, estimates, truth = data()
    with pytest.raises(ValueError, match="at least 4"):
        ridge_surrogate(features, estimates, torch.arange(3), truth[:3])
