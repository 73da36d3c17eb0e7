"""Latent diffusion models: Stable Diffusion 1 and 2, and SDXL.

Sources: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022, arXiv
2112.10752; Podell et al., "SDXL", 2023, arXiv 2307.01952.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from promptfuse.errors import ConfigError, ModelError
from promptfuse.models.base import Batch, Model
from promptfuse.models.batching import pass_bytes
from promptfuse.models.diffusion_text import EncoderRows, TextEncoders
from promptfuse.models.diffusion_tokens import SecondTokenizer
from promptfuse.models.identity import settings_of
from promptfuse.models.precision import at_least_float32
from promptfuse.models.registry import models

_READING, _DIFFERENTIATING = 40, 1000
"""Numbers that a UNet holds for each one of its first layer's output, without and with a gradient.

Counted for the UNets of Stable Diffusion 1.5 (720 with a gradient) and SDXL (1,001).
"""


@dataclass(frozen=True)
class DiffusionParts:
    """The parts of a pipeline.

    Attributes:
        encoders: the CLIP text encoders, one or two.
        tokenizers: their fast tokenizers.
        unet: a ``UNet2DConditionModel``.
        vae: an ``AutoencoderKL``.
        scheduler: a ``DDPMScheduler`` with the pipeline's noise schedule and kind of prediction.
    """

    encoders: tuple[nn.Module, ...]
    tokenizers: tuple[PreTrainedTokenizerFast, ...]
    unet: nn.Module
    vae: nn.Module
    scheduler: Any


class StableDiffusion(nn.Module):
    """All weights of a pipeline; the text encoders come first, whose type and device are the model's."""

    def __init__(self, text_encoder: TextEncoders, unet: nn.Module, vae: nn.Module) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet: Any = unet
        self.vae: Any = vae


@models.register("diffusion")
class DiffusionModel(Model):
    """A text-to-image diffusion model: what its text encoders say, and its UNet, which predicts noise.

    Rows are padded to the full length, as in training: the UNet attends to the padding too. ``outputs`` are
    what the UNet attends to, (rows, positions, d); see ``TextEncoders``.

    With two encoders the embedding of a token is that of the first and that of the second, side by side.

    Args:
        parts: the pipeline's parts.
        name: the hub id or folder that it came from.

    Raises:
        ModelError: if the parts do not fit each other.
    """

    kind = "diffusion"

    def __init__(self, parts: DiffusionParts, name: str) -> None:
        unet: Any = parts.unet
        self.pools = unet.config.addition_embed_type == "text_time"
        # The type that Model declares is wider than what it needs.
        modules: Any = StableDiffusion(TextEncoders(parts.encoders, self.pools), unet, parts.vae)
        super().__init__(modules, parts.tokenizers[0], name)
        self.scheduler = parts.scheduler
        first_tokenizer, *others = parts.tokenizers
        self._second = SecondTokenizer(first_tokenizer, others[0], name) if others else None
        first: Any = parts.encoders[0]
        self._masked = self._second is None and bool(getattr(first.config, "use_attention_mask", False))
        self._check_widths()

    def _check_widths(self) -> None:
        config, text = self.unet.config, self.text_module
        encoders: list[Any] = list(text.encoders)
        reads, channels = config.cross_attention_dim, self.vae.config.latent_channels
        tables = {len(encoder.get_input_embeddings().weight) for encoder in encoders}
        wrong = ""
        if config.in_channels != channels:
            wrong = f"its UNet takes {config.in_channels} channels, its VAE gives {channels}"
        elif isinstance(reads, int) and reads != sum(text.widths):
            wrong = f"its UNet reads {reads} numbers a token, its text encoders give {sum(text.widths)}"
        elif len(tables) > 1:
            wrong = "its text encoders have vocabularies of different sizes"
        elif self.pools and config.projection_class_embeddings_input_dim != (
            6 * config.addition_time_embed_dim + self._pooled_width
        ):
            wrong = "its UNet is told of something else than sizes and the pooled text (is it a refiner?)"
        if wrong:
            raise ModelError(f"{self.name}: {wrong}; give a text-to-image pipeline")

    @property
    def unet(self) -> Any:
        """What predicts the noise."""
        return self.module.unet

    @property
    def vae(self) -> Any:
        """What photos become latents by."""
        return self.module.vae

    @property
    def text_module(self) -> TextEncoders:
        """The text encoders."""
        module: TextEncoders = self.module.text_encoder
        return module

    @property
    def _pooled_width(self) -> int:
        last: Any = self.text_module.encoders[-1]
        return int(last.config.projection_dim)

    def settings(self) -> dict[str, Any]:
        """What decides beside the weights what the model says: all configurations and both tokenizers."""
        parts: dict[str, Any] = {"unet": self.unet.config, "vae": self.vae.config}
        parts |= {"scheduler": self.scheduler.config}
        encoders: list[Any] = list(self.text_module.encoders)
        second = None if self._second is None else self._second.second
        return {
            **super().settings(),
            **{part: settings_of(dict(config)) for part, config in parts.items()},
            "text_encoders": [settings_of(encoder.config.to_dict()) for encoder in encoders],
            "second_tokenizer": None if second is None else second.backend_tokenizer.to_str(),
            "second_padding": None if second is None else second.pad_token_id,
        }

    def collate(self, rows: Sequence[Sequence[int]], content: Sequence[tuple[int, int]]) -> Batch:
        """Pad on the right to the full length; the mask has 1 at tokens."""
        full = [[*row, *[self.pad_id] * (self.max_length - len(row))] for row in rows]
        batch = super().collate(full, content)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        columns = torch.arange(batch.ids.shape[1], device=self.device)
        return replace(batch, mask=(columns < lengths[:, None]).long())

    def read_padded(self, batch: Batch) -> Float[Tensor, "rows positions d"]:
        """What the UNet is told of texts, (rows, positions, d)."""
        own = [EncoderRows(batch.ids, mask=batch.mask if self._masked else None)]
        if self._second is not None:
            own.append(self._second.rows(batch))
        found: Tensor = self.text_module(own)
        return found

    @cached_property
    def bytes_per_token(self) -> int:
        """Memory that a token takes in the text encoders, for rows that are mostly padding."""
        return super().bytes_per_token * max(1, self.max_length // 8)

    @property
    def default_resolution(self) -> int:
        """Pixels of a side of the photos that the model was trained on.

        Raises:
            ConfigError: if the UNet's configuration does not say.
        """
        size = self.unet.config.sample_size
        if size is None:
            raise ConfigError(f"{self.name}: its UNet does not say for which size it is; give a resolution")
        return int(size if isinstance(size, int) else max(size)) * self.pixels_per_latent

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels of a side become one latent."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def check_resolution(self, resolution: int) -> None:
        """Raise ``ConfigError`` for a size that the VAE cannot read."""
        least = self.pixels_per_latent
        if resolution < least or resolution % least:
            raise ConfigError(f"resolution: must be a multiple of {least}, got {resolution}")

    @torch.no_grad()
    def image_latents(
        self, images: Sequence[Image.Image], resolution: int
    ) -> Float[Tensor, "{len(images)} channels height width"]:
        """Latents of RGB photos: the mode of the VAE's distribution, scaled as the UNet takes them.

        Args:
            images: the photos; the largest square in the middle of each is read.
            resolution: pixels of its sides.

        Raises:
            ConfigError: if the VAE cannot read that size.
            ModelError: if the latents are not finite.
        """
        self.check_resolution(resolution)
        found = []
        for image in images:
            side = min(image.size)
            left, top = ((length - side) // 2 for length in image.size)
            # As diffusers resizes photos.
            square = image.crop((left, top, left + side, top + side)).resize(
                (resolution, resolution), Image.Resampling.LANCZOS
            )
            pixels = torch.from_numpy(np.array(square, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
            weight = next(self.vae.parameters())
            found.append(self.vae.encode(pixels[None].to(weight)).latent_dist.mode())
        latents, config = torch.cat(found), self.vae.config
        mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is not None and deviation is not None:
            latents = (latents - latents.new_tensor(mean).view(1, -1, 1, 1)) / latents.new_tensor(
                deviation
            ).view(1, -1, 1, 1)
        latents = at_least_float32(latents * float(config.scaling_factor))
        if not bool(latents.isfinite().all()):
            raise ModelError(f"{self.name}: the latents of a photo are not finite; load the VAE in float32")
        return latents

    def predict(
        self,
        latents: Float[Tensor, "rows channels height width"],
        timesteps: Int[Tensor, " rows"],
        conditioning: Float[Tensor, "rows positions d"],
    ) -> Float[Tensor, "rows channels height width"]:
        """What the UNet says of noisy latents, (rows, channels, height, width); differentiable.

        SDXL is told that the photo has the size of the latents, of which nothing is cropped.

        Args:
            latents: (rows, channels, height, width).
            timesteps: (rows,), how noisy they are.
            conditioning: (rows, positions, d), what the text encoders say.
        """
        more: dict[str, Any] = {}
        if self.pools:
            height, width = (size * self.pixels_per_latent for size in latents.shape[-2:])
            sizes = latents.new_tensor([height, width, 0, 0, height, width]).expand(len(latents), -1)
            pooled = conditioning[:, -1, : self._pooled_width]
            more["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
            conditioning = conditioning[:, :-1]
        found: Tensor = self.unet(
            latents, timesteps, encoder_hidden_states=conditioning, return_dict=False, **more
        )[0]
        return found

    def latents_per_pass(self, height: int, width: int, gradient: bool) -> int:
        """How many latents of this size fit into one pass of the UNet, by an estimate of its memory."""
        each = next(self.unet.parameters()).element_size() * self.unet.config.block_out_channels[0]
        taken: int = each * height * width * (_DIFFERENTIATING if gradient else _READING)
        return max(1, pass_bytes(self.device) // taken)
