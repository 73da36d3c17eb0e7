"""oneDNN's products: the same numbers, and only where nothing is lost by it."""

import pytest
import torch
from torch import nn
from torch.profiler import profile
from transformers.pytorch_utils import Conv1D

from promptfuse.models.fast.products import FastProducts, fast_linear, has_onednn

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="no oneDNN for float32 here")


def layers():
    torch.manual_seed(0)
    return {
        "linear": nn.Linear(24, 40),
        "no bias": nn.Linear(24, 40, bias=False),
        "transposed": Conv1D(40, 24),
    }


INPUTS = {
    "rows": torch.randn(7, 24),
    "batch": torch.randn(3, 5, 24),
    "strided": torch.randn(24, 9).T,
    "every other": torch.randn(3, 8, 24)[:, ::2],
    "none": torch.randn(0, 24),
}


@pytest.mark.parametrize("kind", layers())
@pytest.mark.parametrize("shape", INPUTS)
@torch.no_grad()
def test_the_same_numbers(kind, shape):
    layer, inputs = layers()[kind], INPUTS[shape]
    expected = layer(inputs)
    with FastProducts(nn.Sequential(layer))():
        found = layer(inputs)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(fast_linear(layer, inputs), expected, atol=1e-5)


def libraries(layer, inputs):
    with profile() as profiled, FastProducts(layer)():
        layer(inputs)
    return {event.key for event in profiled.key_averages()}


@needs_onednn
@pytest.mark.parametrize("kind", layers())
def test_onednn_is_asked(kind):
    layer = layers()[kind].requires_grad_(False)
    with torch.no_grad():
        assert "mkldnn::_linear_pointwise" in libraries(layer, torch.randn(4, 24))


@needs_onednn
@pytest.mark.parametrize("kind", layers())
@torch.no_grad()
def test_layers_of_a_module_ask_onednn_within_the_block_only(kind):
    layer, inputs = layers()[kind], torch.randn(4, 24)
    with FastProducts(nn.Sequential(layer))(), profile() as inside:
        layer(inputs)
    with profile() as outside:
        layer(inputs)
    keys = [{event.key for event in profiled.key_averages()} for profiled in (inside, outside)]
    assert ["mkldnn::_linear_pointwise" in found for found in keys] == [True, False]


@pytest.mark.parametrize("kind", layers())
def test_gradients_behind_frozen_weights_are_the_same(kind):
    layer = layers()[kind].requires_grad_(False)
    inputs = torch.randn(4, 24, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(inputs).square().sum(), inputs)
    (found,) = torch.autograd.grad(fast_linear(layer, inputs).square().sum(), inputs)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", layers())
def test_gradients_of_weights_that_move_are_kept(kind):
    layer, inputs = layers()[kind], torch.randn(4, 24)
    for apply in (lambda: fast_linear(layer, inputs), lambda: layer(inputs)):
        with FastProducts(nn.Sequential(layer))():
            (found,) = torch.autograd.grad(apply().square().sum(), layer.weight)
        (expected,) = torch.autograd.grad(layer(inputs).square().sum(), layer.weight)
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", layers())
def test_gradients_go_through_torch(kind):
    layer = layers()[kind]
    inputs = torch.randn(4, 24, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(inputs).square().sum(), inputs)
    with FastProducts(layer)():
        (found,) = torch.autograd.grad(layer(inputs).square().sum(), inputs)
    assert torch.equal(found, expected)


@torch.no_grad()
def test_other_types_are_left_alone():
    layer = nn.Linear(24, 40).double()
    inputs = torch.randn(4, 24, dtype=torch.float64)
    assert "mkldnn::_linear_pointwise" not in libraries(layer, inputs)
    with FastProducts(layer)():
        assert torch.allclose(layer(inputs), inputs @ layer.weight.T + layer.bias, atol=1e-12)
        # Sums that are no layer's.
        assert torch.equal(torch.addmm(torch.ones(2, 2), torch.eye(2), torch.eye(2)), torch.eye(2) + 1)
        assert torch.equal(torch.addmm(torch.ones(2), torch.eye(2), torch.eye(2), beta=3), torch.eye(2) + 3)


@torch.no_grad()
def test_autocast_is_left_to_torch():
    layer, inputs = layers()["linear"], torch.randn(4, 24)
    with torch.autocast("cpu", torch.bfloat16), FastProducts(layer)():
        assert layer(inputs).dtype == torch.bfloat16


@needs_onednn
@torch.no_grad()
def test_replaced_layers_are_found_after_clear():
    module, inputs = nn.Sequential(layers()["linear"]), torch.randn(4, 24)
    products = FastProducts(module)
    with products():
        module(inputs)
    module[0] = nn.Linear(24, 40)
    products.clear()
    with products(), profile() as profiled:
        module(inputs)
    assert "mkldnn::_linear_pointwise" in {event.key for event in profiled.key_averages()}
