"""Weights between a model and its continuation."""

import pytest
import torch

from training.average import between


def test_a_share_lies_between_the_two_or_beyond():
    first = {"a": torch.tensor([0.0, 2.0]), "steps": torch.tensor(3)}
    second = {"a": torch.tensor([1.0, 0.0]), "steps": torch.tensor(9)}
    for share, expected in ((0.0, [0.0, 2.0]), (0.5, [0.5, 1.0]), (1.0, [1.0, 0.0]), (1.5, [1.5, -1.0])):
        found = between(first, second, share)
        assert found["a"].tolist() == expected
        assert int(found["steps"]) == 3


def test_the_first_ones_types_are_kept():
    found = between({"a": torch.ones(2, dtype=torch.float16)}, {"a": torch.zeros(2)}, 0.25)
    assert found["a"].dtype == torch.float16
    assert found["a"].tolist() == [0.75, 0.75]


def test_other_models_are_refused():
    with pytest.raises(SystemExit, match="other weights"):
        between({"a": torch.ones(2)}, {"a": torch.ones(3)}, 0.5)
