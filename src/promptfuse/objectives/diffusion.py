"""Denoising loss: how well a text explains a photo to a text-to-image diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from promptfuse.errors import ConfigError
from promptfuse.models import DiffusionModel, Model
from promptfuse.objectives.base import Term
from promptfuse.objectives.checks import read_photos, require_model_kind
from promptfuse.objectives.denoising import denoising_losses, make_draws
from promptfuse.objectives.registry import terms
from promptfuse.objectives.settings import OfKind, Photos


@terms.register("DiffusionLoss")
class DiffusionLoss(Term):
    """The denoising loss of a photo under a diffusion model that is told the text.

    The photo becomes latents z (the mode of the VAE's distribution). Noise n of several strengths is added,
    and the UNet, told the text, predicts it. The loss is the mean over timesteps t and photos of

        mean((UNet(sqrt(a_t) z + sqrt(1 - a_t) n, t, text) - n) ** 2)

    that is the loss with which the model was trained (Ho et al., 2020, arXiv 2006.11239, equation 14),
    without guidance; for models that predict the velocity or the photo, the error of that. Noise and
    timesteps are drawn once, so the losses of texts can be compared. They differ little beside their size:
    take automatic weights, or a large one.

    Args:
        model: the diffusion model: Stable Diffusion 1, 2 or XL.
        image: a photo, or several: paths or open images. The largest square in the middle of each is read.
        weight: see ``Term``.
        timesteps: how many timesteps to draw, one from each of as many equal parts of the schedule; or the
            timesteps themselves. Each costs a pass of the UNet for every text and photo.
        seed: of the noise and of the timesteps.
        resolution: pixels of the sides of what is read; None for the size that the model was trained on.
        prefix: see ``Term``.
        suffix: see ``Term``.
        name: see ``Term``.

    Raises:
        ImageError: if a photo cannot be read.
        ConfigError: if there are none, or there is no such timestep or resolution.
        ModelError: if the model is no diffusion model.
    """

    def __init__(
        self,
        model: Annotated[Model, OfKind(DiffusionModel)],
        image: Photos,
        weight: float = 1.0,
        *,
        timesteps: int | Sequence[int] = 8,
        seed: Annotated[int, Field(ge=0)] = 0,
        resolution: int | None = None,
        prefix: str = "",
        suffix: str = "",
        name: str = "diffusion",
    ) -> None:
        self.check_settings(timesteps, seed)
        super().__init__(
            require_model_kind(model, "DiffusionLoss", DiffusionModel), weight, prefix, suffix, name
        )
        chosen = _draw_timesteps(timesteps, seed, self.diffusion.scheduler.config.num_train_timesteps)
        self.seed = seed
        self.resolution = self.diffusion.default_resolution if resolution is None else resolution
        self.diffusion.check_resolution(self.resolution)
        photos, self.photo_hashes = read_photos(image)
        latents = self.diffusion.image_latents(photos, self.resolution)
        self.timesteps = chosen.tolist()
        self.draws = make_draws(self.diffusion, latents, chosen, seed)

    @staticmethod
    def check_settings(timesteps: int | Sequence[int], seed: int, **rest: Any) -> None:
        """Raise ``ConfigError`` for what can be no timesteps of any model, or no seed."""
        del rest
        several = [timesteps] if isinstance(timesteps, int) else list(timesteps)
        if not several or any(isinstance(step, bool) or not isinstance(step, int) for step in several):
            raise ConfigError(f"timesteps: must be a number or a list of numbers, got {timesteps!r:.60}")
        least = 1 if isinstance(timesteps, int) else 0
        if min(several) < least:
            raise ConfigError(f"timesteps: must be at least {least}, got {min(several)}")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ConfigError(f"seed: must be a whole number from 0 to 2**63 - 1, got {seed!r:.60}")

    @property
    def diffusion(self) -> DiffusionModel:
        """The diffusion model."""
        return cast(DiffusionModel, self.model)

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        return {
            **super().describe(),
            "photos": self.photo_hashes,
            "timesteps": self.timesteps,
            "seed": self.seed,
            "resolution": self.resolution,
        }

    def loss_from_outputs(self, outputs: Float[Tensor, "rows positions d"]) -> Float[Tensor, " rows"]:
        """Denoising losses, (rows,), of what the text encoders say, (rows, positions, d)."""
        return denoising_losses(self.diffusion, outputs, self.draws)


def _draw_timesteps(timesteps: int | Sequence[int], seed: int, count: int) -> Int[Tensor, " steps"]:
    """The timesteps, (steps,): those given, or one at random from each of equal parts of ``count``."""
    if isinstance(timesteps, int):
        if timesteps > count:
            raise ConfigError(f"timesteps: must be at most {count}, got {timesteps}")
        place = torch.rand(timesteps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return ((torch.arange(timesteps) + place) * count / timesteps).long().clamp(max=count - 1)
    found = torch.tensor(list(timesteps))
    if int(found.max()) >= count:
        raise ConfigError(f"timesteps: must be below {count}, got {int(found.max())}")
    return found
