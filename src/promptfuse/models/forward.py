"""One forward pass of a model: embeddings in, outputs out, in batches that its architecture bears."""

from __future__ import annotations

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from promptfuse.errors import ModelError, PromptfuseWarning
from promptfuse.models.batch import Batch
from promptfuse.models.batching import bytes_per_token
from promptfuse.models.lookups import (
    Lookup,
    embeddings_replaced,
    find_lookups,
    found_embeddings,
    reading_part,
)
from promptfuse.models.text_rows import TextRows
from promptfuse.models.trial import Verdict, is_differentiable, trial_row, try_out


class ForwardPass(TextRows):
    """What of a model reads batches whole, and how that is differentiated."""

    module: PreTrainedModel

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = next(self.module.parameters()).device
        return device

    @property
    @abstractmethod
    def text_module(self) -> nn.Module:
        """The part that reads token ids."""

    @property
    def embedding(self) -> nn.Module:
        """The module that turns token ids into input embeddings.

        Raises:
            ModelError: if there is none, as in a model that reads characters by their hashes.
        """
        try:
            module = self.text_module.get_input_embeddings()  # type: ignore[operator]
        except (NotImplementedError, AttributeError):  # GroupViT's tower does not say.
            module = None
        if isinstance(getattr(module, "weight", None), Tensor):
            return cast(nn.Module, module)
        # Perceiver names a tensor that is of no text.
        found = [part for part in self.text_module.modules() if isinstance(part, nn.Embedding)]
        if not found:
            raise ModelError(
                f"{self.name}: {type(self.module).__name__} has no table of token embeddings; "
                "use another model"
            )
        return max(found, key=lambda part: part.num_embeddings)

    @property
    def embedding_table(self) -> Float[Tensor, "vocabulary d"]:
        """Input embeddings of all ids, (rows, d); rows may outnumber the tokenizer's ids."""
        module = self.embedding
        if type(module) is nn.Embedding:
            # The parameter itself, as long as it takes no gradient: what is made of it can be kept.
            return module.weight.detach() if module.weight.requires_grad else module.weight
        return self._embedded

    @cached_property
    def _embedded(self) -> Float[Tensor, "vocabulary d"]:
        weight: Tensor = self.embedding.weight  # type: ignore[assignment]
        with torch.no_grad():
            # Some architectures scale or normalise after the look-up; the module's output is what counts.
            return self.embed(torch.arange(len(weight), device=self.device))

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d"]:
        """Input embeddings of ids, (..., d)."""
        return found_embeddings(self.embedding(ids))

    @cached_property
    def lookups(self) -> tuple[Lookup, ...]:
        """The modules by which ids become input embeddings, found by a trial; see ``Lookup``."""
        row, content = trial_row(self, min(12, self.max_length))
        batch = self.collate([row], [content])
        with torch.no_grad():
            expected = self.embed(batch.ids)
            return find_lookups(
                self.module, lambda: self.read_padded(batch), batch.ids, expected, self.embedding
            )

    @cached_property
    def verdict(self) -> Verdict:
        """Which rows may be read in one pass, found by a trial.

        Raises:
            ModelError: if the model reads no row, or the same row differently each time.
        """
        return try_out(self)

    @cached_property
    def has_gradient(self) -> bool:
        """Whether gradients come back to the input embeddings, found by a trial; a warning says if not."""
        found = is_differentiable(self)
        if not found:
            self.warn_of_zero_gradient()
        return found

    def warn_of_zero_gradient(self) -> None:
        """Say, the first time, that a gradient at a text is zero everywhere."""
        if self.__dict__.setdefault("_warned", False):
            return
        self.__dict__["_warned"] = True
        warnings.warn(
            f"{self.name}: the gradient of {type(self.module).__name__} at the text is zero, so its terms "
            "only rank texts",
            PromptfuseWarning,
            stacklevel=3,
        )

    def read_padded(self, batch: Batch) -> Float[Tensor, "rows *_"]:
        """What the model makes of the rows of a batch in one pass, (rows, ...); differentiable.

        Not everything may stand in one batch with anything: see ``read_apart``. A kind of model that says
        nothing else is tried out by the mean of its text module's first output over the tokens.
        """
        hidden: Tensor = self.text_module(input_ids=batch.ids, attention_mask=batch.mask)[0]
        read = batch.mask.to(hidden)[..., None]
        return (hidden * read).sum(1) / read.sum(1)

    def read_apart(
        self, batch: Batch, read: Callable[[Batch], Float[Tensor, "rows *_"]]
    ) -> Float[Tensor, "rows *_"]:
        """What ``read`` makes of a batch, (rows, ...), in parts where rows would change each other."""
        rows = batch.rows
        lengths = [len(row) for row in rows]
        groups = self.verdict.groups(lengths)
        if len(groups) == 1:
            return read(batch)
        found = []
        for group in groups:
            longest = max(lengths[row] for row in group)
            with reading_part(torch.tensor(group, device=batch.ids.device), longest):
                found.append(read(batch.part(group, longest)))
        place = torch.tensor([row for group in groups for row in group], device=batch.ids.device).argsort()
        return torch.cat(found)[place]

    def call(self, batch: Batch, **options: Any) -> Any:
        """One pass of the module over a batch."""
        # Nothing goes on from here, and some models cannot differentiate what they keep for later (RWKV).
        given = {"attention_mask": batch.mask, "use_cache": False} | options
        return self.module(
            input_ids=batch.ids,
            **{name: value for name, value in given.items() if name in self._taken or name in options},
        )

    @cached_property
    def _taken(self) -> frozenset[str]:
        """The names of what the module takes; not every one wants to know where padding is (FNet)."""
        return frozenset(inspect.signature(self.module.forward).parameters)

    @cached_property
    def bytes_per_token(self) -> int:
        """Memory that a token takes in a forward pass."""
        itemsize = next(self.module.parameters()).element_size()
        return bytes_per_token(self.text_module.config, itemsize, self.logits_width)

    @property
    def logits_width(self) -> int:
        """How many numbers come out for every single token; none from most models."""
        return 0

    @contextmanager
    def embeddings_from(self, embeddings: Float[Tensor, "rows length d"]) -> Iterator[None]:
        """Make the next forward pass use these input embeddings in place of the look-up.

        Not every text tower takes ``inputs_embeds`` (CLIP's does not), but every one has an embedding
        module, whose output a hook can replace.

        Args:
            embeddings: (rows, length, d), for the very ids that the forward pass is given.
        """
        # A trial within the block would be given these embeddings too.
        assert self.verdict is not None
        with embeddings_replaced(self.lookups, embeddings):
            yield
