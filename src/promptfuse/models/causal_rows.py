"""What a causal language model reads: a beginning, a context, and the text's own tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Self

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptfuse._utils.prefix_cache import prefix_cache_disabled
from promptfuse.errors import TextError
from promptfuse.models.base import REMEMBERED_PARTS, Model
from promptfuse.models.lead import Lead
from promptfuse.models.lookups import Lookup
from promptfuse.models.start import Start, chat_ids, find_start
from promptfuse.models.trial import Verdict
from promptfuse.text.borders import needs_blank
from promptfuse.text.segments import LastSegmentEncoder

_CONTEXTS = 64
"""Contexts that a model knows at the same time; terms keep theirs."""


class CausalRows(Model):
    """The rows of a causal language model; see ``CausalLM`` for the arguments."""

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str, start: str = "auto"
    ) -> None:
        super().__init__(module, tokenizer, name)
        self.wanted_start = start
        self.context = ""
        self._apart = False
        self._plain: Self | None = None
        self._behind: dict[tuple[str, bool], Self] = {}
        self._starts: dict[object, Start] = {}
        find_start(tokenizer, module.config, start, name)

    def clear_cache(self) -> None:
        """Drop all that was computed of the weights, for all contexts that share them."""
        for one in (self.plain, *self.plain._behind.values()):
            Model.clear_cache(one)

    @property
    def plain(self) -> Self:
        """The model without a context; itself if it has none."""
        return self if self._plain is None else self._plain

    def behind(self, context: str, *, apart: bool = False) -> Self:
        """The same model, reading every text after a context.

        The context's tokens belong to what stands before a text: they are not among the text's tokens and
        are not predicted. The text's tokens are those that it has after the context; where one would reach
        across the border, those that it has by itself. Blanks at the end of the context belong to the
        text's first word.

        Args:
            context: what stands before every text; it may have line breaks and special tokens.
            apart: whether every text begins with a word of its own: a blank is put between where the
                context asks for one.

        Returns:
            A model that shares everything with this one, and is the same for a context as long as few others
            are asked for.

        Raises:
            TextError: if the context leaves no room for a text.
        """
        plain = self.plain
        if not context:
            return plain
        if (context, apart) not in plain._behind:
            made = copy.copy(plain)
            made.context, made._apart, made._plain = context, apart, plain
            for name in ("_lead", "_end_marks"):
                made.__dict__.pop(name, None)
            if (longest := len(made.start_ids)) >= plain.max_length:
                shown = context if len(context) <= 40 else context[:37] + "..."
                raise TextError(
                    f"{plain.name}: the context {shown!r} has {longest} tokens, the model reads at most "
                    f"{plain.max_length}; shorten it"
                )
            if len(plain._behind) >= _CONTEXTS:
                del plain._behind[next(iter(plain._behind))]
            plain._behind[context, apart] = made
        return plain._behind[context, apart]

    @property
    def text_module(self) -> nn.Module:
        """The whole model."""
        module: nn.Module = self.module
        return module

    @property
    def start(self) -> Start:
        """What stands before every text, but for the context."""
        tokenizer, config = self.tokenizer, self.module.config
        key = (tokenizer.bos_token_id, tokenizer.eos_token_id, getattr(config, "bos_token_id", None))
        if key not in self._starts:
            self._starts[key] = find_start(tokenizer, config, self.wanted_start, self.name)
        return self._starts[key]

    def describe(self) -> dict[str, str]:
        """Name, fingerprint, identity and ``start``, what stands before every text."""
        return {**super().describe(), "start": self.shown_start}

    @property
    def shown_start(self) -> str:
        """What stands before every text, to be shown: a token, a template, or ``none``."""
        return self.start.shown(self.tokenizer)

    @cached_property
    def _lead(self) -> Lead:
        """The string before every text."""
        front = self.start.front
        if self.context and self._begins(self._encode([self.context])[0]):
            front = ""  # It brings its own beginning.
        lead = f"{front}{self.context}"
        gap = " " if self._apart and needs_blank(lead) else ""
        return Lead(lead, gap, self.tokenizer, super().decode)

    @property
    def start_ids(self) -> tuple[int, ...]:
        """The tokens before every text's own, its context's included; empty if there are none."""
        start, lead = self.start, self._lead.ids
        return lead if self._begins(lead) else (*start.ids, *lead)

    @property
    def closing(self) -> str:
        """The chat template's part after the text."""
        return self.start.behind

    def _begins(self, ids: Sequence[int]) -> bool:
        """Whether tokens bring a beginning of their own: a begin-of-text token, or a chat's."""
        if not ids:
            return False
        begins = (self.tokenizer.bos_token_id, getattr(self.module.config, "bos_token_id", None))
        return ids[0] in (*begins, *self.start.ids[:1]) or ids[0] in self._chat_ids

    @cached_property
    def _chat_ids(self) -> frozenset[int]:
        return chat_ids(tuple(self.tokenizer.get_added_vocab().items()))

    def row(self, ids: Sequence[int]) -> tuple[list[int], int]:
        """A text's tokens after what stands before them, and where they begin.

        Tokens that bring their own beginning, such as a chat template's, get nothing in front.
        """
        if self._begins(ids):
            return list(ids), 1
        start = self.start_ids
        return [*start, *ids], len(start)

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a text: a line break too, after a context whose lines end with one."""
        found = {self.tokenizer.eos_token_id}
        configured = getattr(self.module.config, "eos_token_id", None)
        found |= set(configured) if isinstance(configured, list) else {configured}
        ends = frozenset(value for value in found if isinstance(value, int)) | self.start.ends
        return ends | self._end_marks if self.context else ends

    @cached_property
    def _end_marks(self) -> frozenset[int]:
        """Tokens of line breaks, if the context ends with one."""
        if not self.context.endswith("\n"):
            return frozenset()
        count = min(len(self.tokenizer), len(self.embedding_table))
        texts = super().decode([[index] for index in range(count)])
        return frozenset(
            index for index, text in enumerate(texts) if text.startswith("\n") and not text.strip()
        )

    def _encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of strings as they stand, without any special token put to them."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [tuple(ids) for ids in found]

    def plain_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts after the context, without those of the context and any special token."""
        return [list(ids) for ids in self._lead.encode(texts, self._encode)]

    def cached_ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """``plain_ids`` of texts that grow at the end: what has been encoded before is put together."""
        if prefix_cache_disabled():
            return self._lead.encode(texts, self._encode)
        return self._lead.encode(
            texts, lambda strings: [text.ids for text in self.encoder.encode_many(strings)]
        )

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token ids, as they stand after the context."""
        return self._lead.decode(rows)

    def joined(self, text: str) -> str:
        """The context with a text after it, as a string."""
        return self._lead.joined(text)

    @property
    def pending(self) -> str:
        """The blanks between the context and a text, which the text's first token brings with it."""
        return self._lead.pending

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where the tokens of ``plain_ids`` lie in a text, as half-open ranges of characters."""
        return self._lead.spans(text)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the embedding table and the tokenizer; one for all contexts."""
        return super().fingerprint if self._plain is None else self._plain.fingerprint

    @cached_property
    def lookups(self) -> tuple[Lookup, ...]:
        """The modules by which ids become input embeddings; those of all contexts."""
        return super().lookups if self._plain is None else self._plain.lookups

    @cached_property
    def verdict(self) -> Verdict:
        """Which rows may be read in one pass; one verdict for all contexts."""
        return super().verdict if self._plain is None else self._plain.verdict

    @cached_property
    def has_gradient(self) -> bool:
        """Whether gradients come back to the input embeddings; the same for all contexts."""
        return super().has_gradient if self._plain is None else self._plain.has_gradient

    @cached_property
    def encoder(self) -> LastSegmentEncoder:
        """Encodes the texts' own tokens of texts that grow at the end; one for all contexts."""
        if self._plain is not None:
            return self._plain.encoder
        return LastSegmentEncoder(self.tokenizer, REMEMBERED_PARTS, special=False)

    def encode_cached(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """``cached_rows`` without its checks."""
        return self._framed(self.cached_ids(texts))

    def encode_rows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """Begin-of-text, context and the text's own tokens; see ``Model.token_rows``.

        The tokenizer's own template is not used: whether it adds a begin or an end mark differs
        between models, and the NLL of a text should not.
        """
        return self._framed(self.plain_ids(texts))

    def _framed(self, texts: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        framed = [self.row(ids) for ids in texts]
        return [row for row, _ in framed], [(start, len(row)) for row, start in framed]

    def check(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """Raise where a text has no tokens, or does not fit; see ``Model.token_rows``."""
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise TextError(f"{self.name}: {text!r} has no tokens; give a text that is not empty")
        super().check(texts, rows)
