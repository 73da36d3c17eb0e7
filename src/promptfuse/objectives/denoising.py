"""The denoising loss of texts: how well a diffusion model told of them predicts the noise in photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from promptfuse.models import DiffusionModel
from promptfuse.models.batching import run_halving
from promptfuse.models.precision import at_least_float32


@dataclass(frozen=True)
class Draws:
    """What every text is asked about: noisy latents, the same for all texts.

    Attributes:
        latents: (draws, channels, height, width), with noise.
        timesteps: (draws,), how much of it.
        targets: (draws, channels, height, width), what a perfect UNet would say.
    """

    latents: Float[Tensor, "draws channels height width"]
    timesteps: Int[Tensor, " draws"]
    targets: Float[Tensor, "draws channels height width"]

    def __len__(self) -> int:
        return len(self.latents)


def make_draws(
    model: DiffusionModel,
    latents: Float[Tensor, "photos channels height width"],
    timesteps: Int[Tensor, " steps"],
    seed: int,
) -> Draws:
    """Each photo at each timestep, with the noise of the timestep.

    The noise is drawn on the CPU, so that it is the same on every device.

    Args:
        model: whose noise schedule and kind of prediction are used.
        latents: (photos, channels, height, width).
        timesteps: (steps,).
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(timesteps), *latents.shape[1:], generator=generator).to(latents)
    photos, steps = len(latents), len(timesteps)
    clean = latents.repeat_interleave(steps, 0)
    noise, times = noise.repeat(photos, 1, 1, 1), timesteps.to(latents.device).repeat(photos)
    noisy: Tensor = model.scheduler.add_noise(clean, noise, times)
    prediction = model.scheduler.config.prediction_type
    if prediction == "v_prediction":
        targets: Tensor = model.scheduler.get_velocity(clean, noise, times)
    else:
        targets = noise if prediction == "epsilon" else clean
    return Draws(noisy, times, targets)


def denoising_losses(
    model: DiffusionModel, conditioning: Float[Tensor, "texts positions d"], draws: Draws
) -> Float[Tensor, " texts"]:
    """Mean squared errors of the UNet's predictions, the mean over the draws, (texts,); differentiable.

    Latents are read in passes that fit the memory. A pass is differentiated right after it is made, so that
    its activations need not be kept.

    Args:
        model: the diffusion model.
        conditioning: (texts, positions, d), what its text encoders say.
        draws: what each text is asked about.
    """
    if torch.is_grad_enabled() and conditioning.requires_grad:
        found: Tensor = _Losses.apply(conditioning, model, draws)  # type: ignore[no-untyped-call]
        return found
    return _read(model, conditioning, draws, gradient=False)[0]


class _Losses(torch.autograd.Function):
    """The losses, and their gradients, which are known at once: no text's loss depends on another's row."""

    @staticmethod
    def forward(ctx: Any, conditioning: Tensor, model: DiffusionModel, draws: Draws) -> Tensor:
        losses, gradient = _read(model, conditioning, draws, gradient=True)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * weights.to(gradient)[:, None, None], None, None


def _read(
    model: DiffusionModel, conditioning: Tensor, draws: Draws, gradient: bool
) -> tuple[Float[Tensor, " texts"], Float[Tensor, "texts positions d"] | None]:
    """Losses of texts, (texts,), and their gradients at the conditioning, (texts, positions, d), if asked."""
    count = len(draws)
    losses = at_least_float32(conditioning.new_zeros(len(conditioning)))
    slope = torch.zeros_like(conditioning) if gradient else None

    def run(start: int, stop: int) -> None:
        pairs = torch.arange(start, stop, device=conditioning.device)
        text, draw = pairs // count, pairs % count
        first, last = start // count, (stop - 1) // count + 1
        told = conditioning[first:last].detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            found = model.predict(draws.latents[draw].to(told), draws.timesteps[draw], told[text - first])
            errors = (at_least_float32(found) - draws.targets[draw]).square().mean((1, 2, 3)) / count
            own = torch.autograd.grad(errors.sum(), told)[0] if gradient else None
        losses.index_add_(0, text, errors.detach().to(losses))
        if slope is not None and own is not None:
            slope[first:last] += own

    total = len(conditioning) * count
    height, width = draws.latents.shape[-2:]
    step = model.latents_per_pass(height, width, gradient)
    for start in range(0, total, step):
        run_halving(run, start, min(start + step, total))
    return losses, slope
