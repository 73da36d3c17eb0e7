"""What the three training programs share: schedule, optimiser, log, checkpoints that resume."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def rate(step: int, steps: int, warmup: int, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, then a cosine down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class Optimisers:
    """Muon for the hidden matrices (Jordan et al., 2024), AdamW for embeddings, norms and biases."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Sequence[dict[str, object]],
        lr: float,
        weight_decay: float,
    ) -> None:
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
        ]
        if found := list(matrices):
            self.parts.append(
                torch.optim.Muon(found, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        self.base = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def step(self, factor: float) -> None:
        """Take one step at ``factor`` times the base learning rates and clear the gradients."""
        for part, rates in zip(self.parts, self.base, strict=True):
            for group, base in zip(part.param_groups, rates, strict=True):
                group["lr"] = base * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state as one flat dictionary of tensors, so that it needs no pickle."""
        flat = {}
        for index, part in enumerate(self.parts):
            for key, state in part.state_dict()["state"].items():
                for name, value in state.items():
                    flat[f"optimiser.{index}.{key}.{name}"] = torch.as_tensor(value).clone()
        return flat

    def load_tensors(self, flat: dict[str, torch.Tensor]) -> None:
        """Restore what ``tensors`` gave."""
        for index, part in enumerate(self.parts):
            state: dict[int, dict[str, torch.Tensor]] = {}
            prefix = f"optimiser.{index}."
            for name, value in flat.items():
                if name.startswith(prefix):
                    key, field = name.removeprefix(prefix).split(".")
                    state.setdefault(int(key), {})[field] = value
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


class Run:
    """A work folder with ``log.csv`` and one checkpoint that a killed run goes on from."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.checkpoint = folder / "checkpoint.safetensors"

    def log(self, row: dict[str, object]) -> None:
        """Append one row to the CSV log and print it."""
        path = self.folder / "log.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)

    def save(self, model: nn.Module, optimisers: Optimisers, progress: dict[str, int]) -> None:
        """Write the checkpoint to a temporary name, then rename it."""
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= optimisers.tensors()
        # Convolutions may lie in memory with channels last, which safetensors does not know.
        tensors = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
        part = self.checkpoint.with_suffix(".part")
        save_file(tensors, part, metadata={"progress": json.dumps(progress)})
        part.replace(self.checkpoint)

    def resume(self, model: nn.Module, optimisers: Optimisers) -> dict[str, int]:
        """Load the checkpoint if there is one; return its progress, or an empty dictionary."""
        if not self.checkpoint.exists():
            return {}
        from safetensors import safe_open

        with safe_open(self.checkpoint, "pt") as stream:
            progress: dict[str, int] = json.loads(stream.metadata()["progress"])
        tensors = load_file(self.checkpoint)
        own = {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
        model.load_state_dict(own)
        optimisers.load_tensors(tensors)
        print(f"resumed from {self.checkpoint} at {progress}", flush=True)
        return progress


def split_parameters(
    model: nn.Module, embedding_names: tuple[str, ...]
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Split into hidden matrices, embeddings, and vectors (norms and biases, which take no decay)."""
    matrices, embeddings, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if any(part in name for part in embedding_names):
            embeddings.append(parameter)
        elif parameter.ndim == 2:
            matrices.append(parameter)
        else:
            vectors.append(parameter)
    return matrices, embeddings, vectors


def length_batches(lengths: Sequence[int], tokens: int, rng: np.random.Generator) -> list[list[int]]:
    """Random batches of similar lengths, each with about ``tokens`` tokens after padding."""
    order = rng.permutation(len(lengths))
    pool = 50 * max(1, tokens // max(1, int(np.mean(lengths))))
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        chunk = sorted(order[start : start + pool].tolist(), key=lambda index: lengths[index])
        batch: list[int] = []
        for index in chunk:
            if batch and (len(batch) + 1) * lengths[index] > tokens:
                batches.append(batch)
                batch = []
            batch.append(index)
        if batch:
            batches.append(batch)
    return [batches[index] for index in rng.permutation(len(batches))]


def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Right-pad integer rows to one (rows, longest) tensor."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def save_half(model: nn.Module, folder: Path) -> None:
    """Save a Hugging Face model as fp16 safetensors."""
    model.half().save_pretrained(folder)  # type: ignore[operator]
