"""The vision tower: MobileNetV2, started from ImageNet weights, its tail fine-tuned.

The head of the network (up to the sixth-from-last block group) is frozen, so its output is computed
once per view and cached; only the tail, at 8x8 positions, runs during training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MobileNetV2Config, MobileNetV2Model

IMAGE_SIZE = 256
"""Photos are squashed to squares of this side; at 256 small things are seen that are lost at 192."""

GRID = IMAGE_SIZE // 32
"""Side of the grid of positions that the frozen head leaves."""
FROZEN_LAYERS = 13
"""Inverted-residual blocks in the frozen head; its output is 160 channels at each of 8x8 positions."""


def config() -> MobileNetV2Config:
    """MobileNetV2 1.0 as TensorFlow's hosted model has it; ``hidden_size`` is for the dual encoder."""
    return MobileNetV2Config(image_size=IMAGE_SIZE, tf_padding=True, hidden_size=1280)


def conv_layers(model: MobileNetV2Model) -> list[nn.Module]:
    """The convolution layers in network order (the order of the weights file)."""
    stem = model.conv_stem
    layers = [stem.first_conv, stem.conv_3x3, stem.reduce_1x1]
    for block in model.layer:
        layers += [block.expand_1x1, block.conv_3x3, block.reduce_1x1]
    return [*layers, model.conv_1x1]


def from_tensorflow(path: Path) -> MobileNetV2Model:
    """Load the ImageNet weights, whose batch norms are folded into the convolutions.

    Each batch norm becomes the affine map with unit scale and the folded bias, which keeps the
    architecture a stock ``MobileNetV2Model`` and leaves scale and bias trainable.
    """
    model = MobileNetV2Model(config()).eval()
    weights = np.load(path)
    names = [name[:-2] for name in weights.files if name.endswith("_w")]
    for name, layer in zip(names, conv_layers(model), strict=False):
        kernel = torch.from_numpy(weights[f"{name}_w"])
        # OHWI for full convolutions, 1HWC for depthwise ones; torch wants (out, in / groups, h, w).
        kernel = kernel.permute(3, 0, 1, 2) if "DEPTHWISE" in name else kernel.permute(0, 3, 1, 2)
        norm = layer.normalization
        with torch.no_grad():
            layer.convolution.weight.copy_(kernel)
            norm.weight.fill_(1.0)
            norm.bias.copy_(torch.from_numpy(weights[f"{name}_b"]))
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0 - norm.eps)
    return model


class Head(nn.Module):
    """The frozen part, with its batch norms folded away for speed: pixels -> (batch, 160, 8, 8)."""

    def __init__(self, model: MobileNetV2Model) -> None:
        super().__init__()
        self.stem = model.conv_stem
        self.layers = model.layer[:FROZEN_LAYERS]
        for layer in conv_layers(model)[: 3 + 3 * FROZEN_LAYERS]:
            layer.convolution.bias = nn.Parameter(layer.normalization.bias.detach().clone())
            layer.normalization = None

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (batch, 3, 256, 256) pixels in [-1, 1] to (batch, 160, 8, 8) activations."""
        hidden = self.stem(pixels)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def tail_forward(model: MobileNetV2Model, hidden: Tensor) -> Tensor:
    """The trainable part: (batch, 160, 8, 8) activations -> (batch, 1280) pooled features."""
    for layer in model.layer[FROZEN_LAYERS:]:
        hidden = layer(hidden)
    return model.conv_1x1(hidden).mean(dim=(2, 3))


def tail_parameters(model: MobileNetV2Model) -> list[nn.Parameter]:
    """The parameters that training moves."""
    modules = [*model.layer[FROZEN_LAYERS:], model.conv_1x1]
    return [parameter for module in modules for parameter in module.parameters()]
