"""A term of the objective: one loss of a text under one model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from promptfuse._utils.values import some_text
from promptfuse.adapters import SlotGradient
from promptfuse.errors import ConfigError, ModelError
from promptfuse.models import Batch, Model
from promptfuse.models.base import at_least_float32
from promptfuse.models.batching import cut, cut_branches, run_halving, token_budget
from promptfuse.models.fast.products import fast_products
from promptfuse.models.together import together
from promptfuse.objectives.checks import check_texts, check_unicode

MAX_WEIGHT = 1e6
"""Beyond it the other terms are lost in float32's rounding."""


def check_weight(weight: Any, name: str) -> None:
    """Raise ``ConfigError`` for a number that is no weight of a term."""
    if isinstance(weight, str) or not hasattr(weight, "__float__"):
        raise ConfigError(f"weight of {name}: {weight!r:.60} is no number; give one other than zero")
    if not math.isfinite(weight) or weight == 0:
        raise ConfigError(f"weight of {name}: {weight} is not a finite number other than zero; give one")
    if abs(weight) > MAX_WEIGHT:
        raise ConfigError(
            f"weight of {name}: {weight:g} drowns every other term; give at most {MAX_WEIGHT:g}"
        )


class Term(ABC):
    """A loss for every text; lower is better.

    The loss is per text: it never depends on what else is in the batch.

    Args:
        model: the frozen model that judges; None if none does.
        weight: factor in the objective's sum; any finite number but zero.
        prefix: put before every text.
        suffix: put behind every text.
        name: the key under which results show the term.
    """

    def __init__(self, model: Model | None, weight: float, prefix: str, suffix: str, name: str) -> None:
        check_weight(weight, name)
        for value, what in ((prefix, "prefix"), (suffix, "suffix"), (name, "name")):
            check_unicode(some_text(value, f"{what} of {name}"), f"{what} of {name}")
        self._model = model
        self.weight = float(weight)
        self.prefix = prefix
        self.suffix = suffix
        self.name = name

    @property
    def model(self) -> Model:
        """The model that judges.

        Raises:
            ConfigError: if none does.
        """
        if self._model is None:
            raise ConfigError(f"the term {self.name} has no model; ask has_model first")
        return self._model

    @property
    def reading_model(self) -> Model:
        """What is given the texts: the model, which may read something before every text by itself."""
        return self.model

    @property
    def has_model(self) -> bool:
        """Whether a model judges."""
        return self._model is not None

    @property
    def has_gradient(self) -> bool:
        """Whether a ``slot_gradient`` says anything; a term without one only ranks finished texts."""
        return self.has_model and self.model.has_gradient

    @abstractmethod
    def losses(self, batch: Batch) -> Tensor:
        """Losses of encoded texts, (rows,); differentiable with respect to the input embeddings."""

    @property
    def batch_key(self) -> Hashable:
        """Terms of one reading make their losses from the same ``outputs``, so one pass serves them all."""
        return id(self)

    def outputs(self, batch: Batch) -> Tensor:
        """What the model says of encoded texts, (rows, ...); differentiable like the losses."""
        return self.losses(batch)

    def loss_from_outputs(self, outputs: Tensor) -> Tensor:
        """The losses, (rows,), that follow from outputs."""
        return outputs

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        return {
            "kind": type(self).__name__,
            **({"model": self.model.identity} if self.has_model else {}),
            "weight": self.weight,
            "prefix": self.prefix,
            "suffix": self.suffix,
        }

    def wrap(self, text: str) -> str:
        """The string that the model reads for a text."""
        return f"{self.prefix}{text}{self.suffix}"

    def unfinished_input(self, text: str) -> str:
        """What ``reading_model`` is given for a text that may go on: ``model_input`` without the suffix."""
        return f"{self.prefix}{text}"

    def model_input(self, text: str) -> str:
        """What ``reading_model`` is given for a text: ``wrap``, but for what it reads before it by itself."""
        return f"{self.unfinished_input(text)}{self.suffix}"

    def check(self, text: str) -> None:
        """Raise a ``TextError`` if the model has no room for a text."""
        if self.has_model:
            self.reading_model.token_rows([self.model_input(text)])

    @torch.no_grad()
    def exact(self, text: str) -> float:
        """The loss of one text by the book: a fresh encode, a batch of one, no cache.

        This defines the value of a text; every faster path is tested against it.
        """
        return self._finite(self.losses(self.reading_model.encode([self.model_input(text)])), [text]).item()

    @torch.no_grad()
    def score(
        self,
        texts: Sequence[str],
        batch_size: int | None = None,
        parents: Sequence[str] | None = None,
    ) -> Tensor:
        """Losses of texts, (len(texts),), in the order given.

        Args:
            texts: the texts.
            batch_size: the most rows in one forward pass; None for as many as fit. It does not change the
                losses beyond rounding.
            parents: for each text the text that it grew from. What they have in common is then read once
                where the model is causal. None to read every text whole.
        """
        check_texts(texts)
        if not texts:
            return torch.empty(0, device=self.model.device)
        key = ("score", self.batch_key, batch_size, parents is None)
        losses = together(key, _Asked(self, texts, parents), partial(_score_together, batch_size=batch_size))
        return self._finite(losses, texts)

    @torch.no_grad()
    def outputs_of(self, texts: Sequence[str], parents: Sequence[str]) -> Tensor:
        """What the model says of texts that grew from others, (len(texts), ...); see ``outputs``."""
        rows, content = self.reading_model.token_rows([self.model_input(text) for text in texts])
        return self._read(self.outputs, rows, content, self._beginnings(parents), None)

    def _beginnings(self, texts: Sequence[str]) -> list[list[int]]:
        """Rows of texts with the prefix, and without the suffix and what closes a row."""
        distinct = list(dict.fromkeys(texts))
        found = self.reading_model.unterminated_rows([self.unfinished_input(text) for text in distinct])
        by_text = dict(zip(distinct, found, strict=True))
        return [by_text[text] for text in texts]

    def _read(
        self,
        outputs: Callable[[Batch], Tensor],
        rows: Sequence[Sequence[int]],
        content: Sequence[tuple[int, int]],
        beginnings: Sequence[Sequence[int]] | None,
        batch_size: int | None,
    ) -> Tensor:
        """Outputs of rows, (rows, ...) in the order given, in batches that fit.

        Args:
            outputs: what to make of a batch.
            rows: token ids.
            content: for each row what ``Batch.text_spans`` says.
            beginnings: for each row one that it may begin like, and that is then read once; None to read
                every row whole.
            batch_size: the most rows in a batch; None for as many as fit.
        """
        model = self.model
        branches = None if beginnings is None else model.match_prefixes(rows, beginnings)
        budget = token_budget(model.device, model.bytes_per_token)
        if branches is None:
            order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
            ends = cut([len(rows[index]) for index in order], budget, batch_size)
        else:
            prefix_index, prefix_length = branches.prefix_index, branches.prefix_length
            fresh = [
                len(row) - known - model.n_unscored for row, known in zip(rows, prefix_length, strict=True)
            ]
            order = sorted(range(len(rows)), key=lambda index: (prefix_index[index], fresh[index]))
            ends = cut_branches(
                [fresh[index] for index in order],
                [prefix_index[index] for index in order],
                budget,
                batch_size,
            )

        def run(start: int, stop: int) -> Tensor:
            part = order[start:stop]
            batch = model.collate([rows[index] for index in part], [content[index] for index in part])
            if branches is not None:
                batch = replace(batch, branches=branches.part(part))
            # What reads branches asks for fast products itself, where that is cheap.
            with fast_products(model.device) if branches is None else nullcontext():
                return outputs(batch)

        found: list[Tensor] = []
        start = 0
        for stop in ends:
            found += run_halving(run, start, stop)
            start = stop
        place = torch.tensor(order, device=model.device).argsort()
        return torch.cat(found)[place]

    def _finite(self, losses: Tensor, texts: Sequence[str]) -> Tensor:
        if not bool(torch.isfinite(losses).all()):
            text = texts[int((~torch.isfinite(losses)).nonzero()[0, 0])]
            raise ModelError(f"{self.model.name}: the loss of {text!r} is not finite; load it in float32")
        return losses

    def slot_gradient(self, texts: Sequence[str], probe: Tensor, slots: int) -> SlotGradient:
        """Gradients of the loss at a placeholder for the next word of each text.

        For every slot length m up to ``slots``, m placeholder tokens stand behind the text (before
        the suffix and the closing special tokens), each with the embedding ``probe``. A row's
        gradient is its own: rows do not share the placeholder.

        Args:
            texts: the beams.
            probe: (beams, d), the placeholder's embedding for each beam.
            slots: the longest slot.

        Returns:
            Losses and gradients for each beam and slot length; see ``SlotGradient``.

        Raises:
            TextError: if a text with its slot is longer than the model takes.
        """
        asked = _Asked(self, texts, None, probe)
        return together(("slot", self.batch_key, slots), asked, partial(_slots_together, slots=slots))

    def _slots(
        self, texts: Sequence[str], slots: int
    ) -> tuple[list[list[int]], list[tuple[int, int]], list[tuple[int, int]]]:
        """Rows with placeholders, their contents, and for each the place and number of its placeholders."""
        rows, content = self.reading_model.cached_rows([self.unfinished_input(text) for text in texts])
        tail, holder = self._tail_ids(self.suffix), self._holder_id()
        filled, ranges, places = [], [], []
        for row, (start, stop) in zip(rows, content, strict=True):
            for length in range(1, slots + 1):
                filled.append([*row[:stop], *[holder] * length, *tail, *row[stop:]])
                ranges.append((start, stop + length + len(tail)))
                places.append((stop, length))
        # A slot that no longer fits is no slot: the row is refused like any other text that is too long.
        self.model.check([text for text in texts for _ in range(slots)], filled)
        return filled, ranges, places

    def _at_placeholders(
        self,
        batch: Batch,
        places: Sequence[tuple[int, int]],
        probe: Tensor,
        losses_of: Callable[[Batch], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, and gradients at the placeholders.

        Args:
            batch: the rows with their placeholders, as many for each probe.
            places: for each row the column of its first placeholder, and how many there are.
            probe: (probes, d).
            losses_of: in place of the term's own ``losses``.

        Returns:
            What ``losses`` gives; (rows, longest slot, d), zero behind a row's own placeholders; and the
            probe as the model read it.
        """
        losses_of = losses_of or self.losses
        first, length = torch.tensor(places, device=batch.ids.device).unbind(1)
        column = torch.arange(batch.ids.shape[1], device=batch.ids.device)
        slot = (column >= first[:, None]) & (column < (first + length)[:, None])
        batch = replace(batch, placeholder_mask=slot)
        with torch.no_grad():
            embeddings = self.model.embed(batch.ids)
        # What stands in the slot is what the linear estimate starts from, rounding included.
        probe = probe.to(embeddings)
        each = probe.repeat_interleave(len(places) // len(probe), 0)
        embeddings = torch.where(slot[..., None], each[:, None], embeddings)
        embeddings.requires_grad_(True)
        rows = batch.rows
        # Nothing before the placeholder depends on it, so a causal model need not read that again.
        beginnings = [row[:start] for row, (start, _) in zip(rows, places, strict=True)]
        branches = self.model.match_prefixes(rows, beginnings)
        # A model that gives none may refuse to be asked for one.
        with torch.set_grad_enabled(self.model.has_gradient):
            if branches is None:
                with self.model.embeddings_from(embeddings):
                    losses = losses_of(batch)
            else:
                losses = losses_of(replace(batch, branches=replace(branches, embeddings=embeddings)))
            gradient = torch.zeros_like(embeddings)
            if losses.requires_grad:  # A language model predicts nothing behind a slot that ends the row.
                (own,) = torch.autograd.grad(losses.sum(), embeddings, allow_unused=True)
                gradient = gradient if own is None else own
        if not self.model.logits_width and not bool(gradient.any()):
            self.model.warn_of_zero_gradient()
        gradient = at_least_float32(gradient)
        found = gradient.new_zeros(len(places), int(length.max()), gradient.shape[-1])
        found[column[: found.shape[1]] < length[:, None]] = gradient[slot]
        return losses.detach(), found, at_least_float32(probe)

    def _tail_ids(self, tail: str) -> list[int]:
        """Tokens of what stands right behind a word, such as the suffix."""
        if not tail:
            return []
        word = "word"  # Alone, the tail might get the blank of a word's beginning (SentencePiece).
        alone, behind = self.model.tokenizer([word, f"{word}{tail}"], add_special_tokens=False)["input_ids"]
        if behind[: len(alone)] == alone:
            return list(behind[len(alone) :])
        return list(self.model.tokenizer(tail, add_special_tokens=False)["input_ids"])

    def _holder_id(self) -> int:
        """An id for the placeholder.

        It is never looked up, its embedding is replaced; but models find the end of a text and its
        positions by special ids.
        """
        special = {*self.model.tokenizer.all_special_ids, self.model.pad_id}
        return next(index for index in range(len(self.model.embedding_table)) if index not in special)


@dataclass(frozen=True)
class _Asked:
    """What one term is asked for, maybe together with others.

    Attributes:
        term: the term.
        texts: the texts.
        parents: see ``Term.score``.
        probe: see ``Term.slot_gradient``.
    """

    term: Term
    texts: Sequence[str]
    parents: Sequence[str] | None = None
    probe: Tensor | None = None


@torch.no_grad()
def _score_together(asked: Sequence[_Asked], batch_size: int | None) -> list[Tensor]:
    """Losses of the texts of terms with one reading, in one go."""
    rows: list[list[int]] = []
    content: list[tuple[int, int]] = []
    beginnings: list[list[int]] = []
    for one in asked:
        model, wrapped = one.term.reading_model, [one.term.model_input(text) for text in one.texts]
        # With a suffix no text is the beginning of another.
        more, ranges = model.token_rows(wrapped) if one.term.suffix else model.cached_rows(wrapped)
        rows += more
        content += ranges
        beginnings += [] if one.parents is None else one.term._beginnings(one.parents)
    first = asked[0]
    outputs = first.term._read(
        first.term.outputs, rows, content, None if first.parents is None else beginnings, batch_size
    )
    parts = torch.split(outputs, [len(one.texts) for one in asked])
    return [one.term.loss_from_outputs(part) for one, part in zip(asked, parts, strict=True)]


def _slots_together(asked: Sequence[_Asked], slots: int) -> list[SlotGradient]:
    """Slot gradients of terms with one reading, in one go."""
    filled: list[list[int]] = []
    ranges: list[tuple[int, int]] = []
    places: list[tuple[int, int]] = []
    for one in asked:
        rows, content, where = one.term._slots(one.texts, slots)
        filled += rows
        ranges += content
        places += where
    first, counts = asked[0].term, [len(one.texts) for one in asked]

    def losses_of(batch: Batch) -> Tensor:
        parts = torch.split(first.outputs(batch), [slots * count for count in counts])
        return torch.cat([one.term.loss_from_outputs(part) for one, part in zip(asked, parts, strict=True)])

    probes = torch.cat([one.probe for one in asked if one.probe is not None])
    batch = first.model.collate(filled, ranges)
    losses, gradient, probes = first._at_placeholders(batch, places, probes, losses_of)
    parts = (
        torch.split(losses.view(-1, slots), counts),
        torch.split(gradient.view(-1, slots, slots, gradient.shape[-1]), counts),
        torch.split(probes, counts),
    )
    return [SlotGradient(*part) for part in zip(*parts, strict=True)]
