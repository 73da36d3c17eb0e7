"""The tests run with the declared shapes of tensors checked; here that they are.

By default those of the t-product and the adapters; ``make shapes`` checks those of all packages.
"""

import pytest
import torch
from jaxtyping import TypeCheckError

from promptfuse.adapters.fit import embed_words
from promptfuse.adapters.maps import Maps
from promptfuse.models import Batch
from promptfuse.objectives.gradients import TextGradient
from promptfuse.search.methods.swaps import against_table
from promptfuse.tproduct import t_solve, t_transpose


@pytest.fixture
def _all_packages(request: pytest.FixtureRequest) -> None:
    if "promptfuse.models" not in request.config.getoption("--jaxtyping-packages"):
        pytest.skip("these shapes are checked by make shapes")


def test_a_tensor_of_another_rank_is_refused():
    with pytest.raises(TypeCheckError):
        t_transpose(torch.zeros(2))


def test_dimensions_that_do_not_belong_together_are_refused():
    with pytest.raises(TypeCheckError):
        t_solve(torch.zeros(3, 3, 2), torch.zeros(4, 5, 2))


def test_maps_of_other_widths_are_refused():
    with pytest.raises(TypeCheckError):
        Maps({1: torch.zeros(3, 2, 1)}, torch.zeros(4, 2)).of_length(1)


def test_words_of_numbers_that_are_not_ids_are_refused():
    with pytest.raises(TypeCheckError):
        embed_words(torch.zeros(3, 2), torch.zeros(4, 1))


@pytest.mark.usefixtures("_all_packages")
def test_a_gradient_at_more_tokens_than_there_are_is_refused():
    with pytest.raises(TypeCheckError):
        TextGradient(torch.tensor([1, 2]), [(0, 1), (1, 2)], torch.zeros(3, 4), None)


@pytest.mark.usefixtures("_all_packages")
def test_a_batch_whose_mask_has_other_columns_is_refused():
    with pytest.raises(TypeCheckError):
        Batch(torch.tensor([[1, 2]]), torch.ones(1, 3), ((0, 2),))


@pytest.mark.usefixtures("_all_packages")
def test_gradients_of_another_width_than_the_table_are_refused():
    with pytest.raises(TypeCheckError):
        against_table(torch.zeros(1, 3), torch.zeros(5, 4), [0])
