"""Packed weights: the same numbers, never of an old weight, within their limit, gone with the model."""

import gc

import pytest
import torch
from torch import nn

from promptfuse.models.fast.onednn_weights import PackedWeights
from promptfuse.models.fast.products import has_onednn

pytestmark = pytest.mark.skipif(not has_onednn(), reason="no oneDNN for float32 here")


def product(inputs, weight):
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, None, "none", [], "")


def is_packed(weight):
    return weight.layout == torch._mkldnn


@pytest.fixture
def packed():
    return PackedWeights(limit=2**20)


@pytest.fixture
def weight():
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(40, 72), requires_grad=False)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rows", [2, 7, 200])
def test_the_same_numbers_to_the_last_bit(packed, weight, transposed, rows):
    inputs = torch.randn(rows, 40 if transposed else 72)
    plain = weight.t() if transposed else weight
    found = packed.of(weight, transposed)
    assert is_packed(found)
    assert torch.equal(product(inputs, found), product(inputs, plain))
    assert torch.allclose(product(inputs, found), inputs @ plain.t(), atol=1e-4)


def test_a_row_is_the_same_alone_and_among_others(packed, weight):
    inputs = torch.randn(50, 72)
    together = product(inputs, packed.of(weight))
    for index in range(5):
        assert torch.equal(product(inputs[index : index + 1], packed.of(weight))[0], together[index])


def test_it_is_packed_once(packed, weight):
    assert packed.of(weight) is packed.of(weight)
    assert packed.of(weight, transposed=True) is packed.of(weight, transposed=True)


def test_what_is_no_parameter_is_left_as_it_is(packed):
    weight = torch.randn(40, 72)
    assert packed.of(weight) is weight
    assert packed.of(weight, transposed=True).shape == (72, 40)
    assert packed.nbytes == 0


def test_there_is_a_limit_and_room_again_once_a_weight_is_gone():
    first, other = (nn.Parameter(torch.randn(40, 72)) for _ in range(2))
    packed = PackedWeights(limit=first.nbytes)
    assert is_packed(packed.of(first))
    assert packed.nbytes == first.nbytes
    assert packed.of(other) is other
    assert not is_packed(packed.of(first, transposed=True))
    del first
    gc.collect()
    assert packed.nbytes == 0
    assert is_packed(packed.of(other))


def test_what_is_dropped_is_packed_anew(packed, weight):
    before = packed.of(weight)
    packed.drop([weight, torch.zeros(1)])
    assert packed.nbytes == 0
    assert packed.of(weight) is not before
