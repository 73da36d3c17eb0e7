"""A text tower's layers by prepared weights: the same numbers and gradients as by its modules."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import profile
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from promptfuse.models.fast import dense_attention, packed_blocks
from promptfuse.models.fast.onednn_weights import PACKED, PackedWeights
from promptfuse.models.fast.packed_blocks import PackedBlock, PackedBlocks
from promptfuse.models.fast.prefix import Branches
from promptfuse.models.fast.products import has_onednn
from promptfuse.models.fast.tower_blocks import ModuleBlock
from promptfuse.models.fast.towers import TextTower

pytestmark = pytest.mark.skipif(not has_onednn(), reason="no oneDNN for float32 here")

ROWS = [[1, 2, 3, 4, 9], [1, 2, 3, 5, 6, 9], [1, 2, 7, 9], [1, 8, 8, 2, 6, 9]]
BRANCHES = (1, 1, 0, 0), (3, 3, 2, 1)


def tower(activation: str = "quick_gelu", **changes: Any) -> TextTower:
    torch.manual_seed(0)
    settings = {"hidden_size": 24, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 3}
    config = CLIPTextConfig(
        vocab_size=10, eos_token_id=9, bos_token_id=1, pad_token_id=0, max_position_embeddings=12,
        hidden_act=activation, **(settings | changes),
    )  # fmt: skip
    module = CLIPTextModel(config).eval().requires_grad_(False)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return TextTower(module, nn.Linear(24, 8, bias=False).requires_grad_(False), 10**7)


def features(found: TextTower, embeddings: Tensor | None = None) -> Tensor:
    prefixes = found.prefixes([(1, 2), (1, 2, 3)])
    return found.features(ROWS, Branches(tuple(prefixes), *BRANCHES, embeddings))


def gradient(found: TextTower) -> Tensor:
    table = found.module.embeddings.token_embedding.weight
    embeddings = torch.stack([table[torch.tensor([*row, 0, 0][:6])] for row in ROWS]).requires_grad_(True)
    with torch.enable_grad():
        (moved,) = torch.autograd.grad(features(found, embeddings).square().sum(), embeddings)
    return moved


def by_modules(
    found: TextTower, monkeypatch: pytest.MonkeyPatch, asked: Callable[[TextTower], Tensor]
) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(PackedBlocks, "usable", lambda self, gradient: None)
        found.cache.clear()
        expected = asked(found)
    found.cache.clear()
    return expected


@pytest.mark.parametrize("way", ["dense", "branch by branch"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_features_and_gradients_are_those_of_the_modules(activation, layers, way, monkeypatch):
    monkeypatch.setitem(dense_attention.DENSE, "cpu", 10**9 if way == "dense" else 0)
    found = tower(activation, num_hidden_layers=layers)
    for asked in (features, gradient):
        expected = by_modules(found, monkeypatch, asked)
        assert torch.allclose(asked(found), expected, rtol=1e-4, atol=1e-5)
    assert found._packed is not None
    assert found._packed.blocks is not None


@torch.no_grad()
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["quick_gelu", "relu"])
def test_a_layer_may_lack_biases_and_factors(activation, bias, affine):
    layer = tower(activation).module.encoder.layers[0]
    if not affine:
        layer.layer_norm1, layer.layer_norm2 = (nn.LayerNorm(24, elementwise_affine=False) for _ in range(2))
    if not bias:
        for part in layer.modules():
            if isinstance(part, nn.Linear | nn.LayerNorm):
                part.bias = None
    hidden, mixed, some = torch.randn(7, 24), torch.randn(7, 3, 8), torch.tensor([4, 1])
    for last in (False, True):
        packed, plain = PackedBlock(layer, last), ModuleBlock(layer)
        asking = some if last else None
        for own, true in zip(packed.project(hidden, asking), plain.project(hidden, asking), strict=True):
            assert torch.allclose(own, true, atol=1e-5)
        assert torch.allclose(packed.finish(hidden, mixed), plain.finish(hidden, mixed), atol=1e-5)


@torch.no_grad()
def test_nothing_passes_over_the_wide_layer_between_the_products():
    block = PackedBlock(tower().module.encoder.layers[0], False)
    with profile(record_shapes=True) as profiled:
        block.finish(torch.randn(9, 24), torch.randn(9, 3, 8))
    passes = {
        event.key
        for event in profiled.key_averages(group_by_input_shape=True)
        if [9, 56] in event.input_shapes
    }
    assert passes == {"mkldnn::_linear_pointwise"}


@pytest.mark.parametrize("change", ["in place", "data", "replaced"])
def test_weights_that_change_are_noticed(change, monkeypatch):
    found = tower()
    before = features(found)
    layer = found.module.encoder.layers[1]
    if change == "in place":
        layer.mlp.fc1.weight.mul_(2)
    elif change == "data":
        layer.mlp.fc1.weight.data *= 2
    else:
        found.module.encoder.layers[1] = tower().module.encoder.layers[2]
    after = features(found)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(after, by_modules(found, monkeypatch, features), rtol=1e-4, atol=1e-5)


def test_hooks_are_called_and_weights_get_their_gradients():
    found = tower()
    before = features(found)
    norm = found.module.encoder.layers[0].layer_norm2
    handle = norm.register_forward_hook(lambda module, args, output: output + 1)
    assert not torch.allclose(features(found), before, atol=1e-3)
    handle.remove()
    assert torch.allclose(features(found), before, atol=1e-6)
    weight = found.module.encoder.layers[1].mlp.fc2.weight.requires_grad_(True)
    (moved,) = torch.autograd.grad(features(found).sum(), weight)
    assert moved.abs().max() > 0


@pytest.mark.parametrize("room", ["none", "for one way"])
def test_without_room_the_modules_are_called(room, monkeypatch):
    found = tower()
    expected = [by_modules(found, monkeypatch, asked) for asked in (features, gradient)]
    nbytes = sum(part.weight.nbytes for part in found.module.encoder.modules() if isinstance(part, nn.Linear))
    monkeypatch.setattr(packed_blocks, "PACKED", PackedWeights(0 if room == "none" else nbytes))
    found.forget()
    for asked, true in zip((features, gradient), expected, strict=True):
        assert torch.allclose(asked(found), true, rtol=1e-4, atol=1e-5)
    assert (found._packed.blocks is None) == (room == "none")
    assert found._packed.usable(gradient=True) is None


def test_room_is_counted_and_given_back():
    found = tower()
    before = PACKED.nbytes
    features(found)
    held = PACKED.nbytes - before
    assert held > 0
    gradient(found)
    assert PACKED.nbytes - before >= 2 * held
    found.forget()
    assert PACKED.nbytes - before < held


def test_a_copy_has_weights_of_its_own():
    found = tower()
    before = features(found)
    copied = deepcopy(found)
    assert torch.allclose(features(copied), before, atol=1e-6)
    copied.module.encoder.layers[1].mlp.fc1.weight.mul_(2)
    assert not torch.allclose(features(copied), before, atol=1e-3)
    assert torch.equal(features(found), before)
    assert torch.equal(features(pickle.loads(pickle.dumps(found))), before)


def test_other_types_are_read_by_their_modules():
    found = tower()
    found.module.double()
    found.projection.double()
    assert features(found).dtype == torch.float64
    assert found._packed.blocks is None


def test_activations_of_other_kinds_and_autocast_are_left_to_the_modules():
    found = tower("gelu")
    before = features(found)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(features(found).float(), before, atol=0.1)
    for layer in found.module.encoder.layers:
        layer.mlp.activation_fn = nn.SiLU(inplace=True)
    changed = features(found)
    assert not torch.allclose(changed, before, atol=1e-4)
    assert found._packed.blocks is None
    assert bool(torch.isfinite(gradient(found)).all())
    for layer in found.module.encoder.layers:
        layer.mlp.activation_fn = nn.SiLU()
    assert torch.allclose(features(found), changed, atol=1e-5)
    assert found._packed.blocks is not None
