"""Causal language models."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptfuse.errors import TextError
from promptfuse.models.base import REMEMBERED_PARTS, Batch, Model, at_least_float32
from promptfuse.models.batching import prefix_bytes, token_budget
from promptfuse.models.fast.kv import CausalReader
from promptfuse.models.fast.prefix import Branches, KVPrefix, prefix_cache_disabled
from promptfuse.models.lead import Lead
from promptfuse.models.lookups import Lookup
from promptfuse.models.start import Start, chat_ids, find_start
from promptfuse.models.together import together
from promptfuse.models.trial import Verdict
from promptfuse.text.borders import needs_blank
from promptfuse.text.segments import LastSegmentEncoder

_ROWS_AT_ONCE = 64
"""Rows whose keys and values are held at the same time."""

_CONTEXTS = 64
"""Contexts that a model knows at the same time; terms keep theirs."""


class CausalLM(Model):
    r"""A causal language model: next-token distributions and the NLL of texts.

    A text is read behind the model's begin-of-text token where it has one, so that its first token
    has a probability too; a text that brings its own gets no second one.

    Args:
        module: the loaded model.
        tokenizer: its fast tokenizer.
        name: the hub id or folder that it came from.
        start: what stands before every text:

            * ``auto``: the begin-of-text token, or what stands between documents if that is a token of a
              chat (``<|im_start|>``) or there is none;
            * ``bos``: the begin-of-text token, whatever it is;
            * ``none``: nothing;
            * a special token, such as ``<|endoftext|>``;
            * a chat template with a slot for the text, such as
              ``<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n``; what is behind the slot stands
              between the text and what ``TargetContinuation`` wants;
            * ``chat``: the tokenizer's own template, with the slot in the user's turn.

    Attributes:
        context: what else stands before every text, see ``behind``.

    Raises:
        ConfigError: if there is no such start.
        ModelError: if the tokenizer is not a fast one.
    """

    kind = "causal-lm"

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str, start: str = "auto"
    ) -> None:
        super().__init__(module, tokenizer, name)
        self.wanted_start = start
        self.context = ""
        self._apart = False
        self._plain: CausalLM | None = None
        self._behind: dict[tuple[str, bool], CausalLM] = {}
        self._starts: dict[object, Start] = {}
        find_start(tokenizer, module.config, start, name)

    def clear_cache(self) -> None:
        """See ``Model.clear_cache``; for all contexts that share these weights."""
        for one in (self.plain, *self.plain._behind.values()):
            Model.clear_cache(one)

    @property
    def plain(self) -> CausalLM:
        """The model without a context; itself if it has none."""
        return self if self._plain is None else self._plain

    def behind(self, context: str, *, apart: bool = False) -> CausalLM:
        """The same model, reading every text behind a context.

        The context's tokens belong to what stands before a text: they are not among the text's tokens and
        are not predicted. The text's tokens are those that it has behind the context; where one would reach
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
                    f"{plain.name}: the context {shown!r} has {longest} tokens, the model takes "
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
        """See ``Model.describe``; with ``start``, what stands before every text."""
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
        """The chat template's part behind the text."""
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
        """A text's tokens behind what stands before them, and where they begin.

        Tokens that bring their own beginning, such as a chat template's, get nothing in front.
        """
        if self._begins(ids):
            return list(ids), 1
        start = self.start_ids
        return [*start, *ids], len(start)

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a text: a line break too, behind a context whose lines end with one."""
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
        """Token ids of texts behind the context, without those of the context and any special token."""
        return [list(ids) for ids in self._lead.encode(texts, self._encode)]

    def grown_ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """``plain_ids`` of texts that grow at the end: what has been encoded before is put together."""
        if prefix_cache_disabled():
            return self._lead.encode(texts, self._encode)
        return self._lead.encode(
            texts, lambda strings: [text.ids for text in self.encoder.encode_many(strings)]
        )

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """See ``Model.decode``; of tokens as they stand behind the context."""
        return self._lead.decode(rows)

    def joined(self, text: str) -> str:
        """The context with a text behind it, as a string."""
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
        """See ``Model.fingerprint``."""
        return super().fingerprint if self._plain is None else self._plain.fingerprint

    @cached_property
    def lookups(self) -> tuple[Lookup, ...]:
        """See ``Model.lookups``."""
        return super().lookups if self._plain is None else self._plain.lookups

    @cached_property
    def verdict(self) -> Verdict:
        """See ``Model.verdict``."""
        return super().verdict if self._plain is None else self._plain.verdict

    @cached_property
    def has_gradient(self) -> bool:
        """See ``Model.has_gradient``."""
        return super().has_gradient if self._plain is None else self._plain.has_gradient

    @cached_property
    def encoder(self) -> LastSegmentEncoder:
        """See ``Model.encoder``; of the texts' own tokens."""
        if self._plain is not None:
            return self._plain.encoder
        return LastSegmentEncoder(self.tokenizer, REMEMBERED_PARTS, special=False)

    def encode_grown(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """See ``Model.encode_grown``."""
        return self._framed(self.grown_ids(texts))

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

    @property
    def logits_width(self) -> int:
        """The vocabulary."""
        return len(self.embedding_table)

    def nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Summed NLL in nats and the number of tokens predicted, both (rows,); differentiable.

        Placeholders are read but not predicted: the probability of a word that is not chosen yet has no
        meaning.
        """
        losses = self.token_nll(batch)
        return losses.sum(1), self.predicted(batch).sum(1)

    def content_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As ``nll``, of the rows' content alone: given what stands before it, such as a context."""
        starts = [start for start, _ in batch.text_spans]
        if max(starts, default=0) <= 1:
            return self.nll(batch)
        losses, valid = self.token_nll(batch, [start - 1 for start in starts]), self.predicted(batch)
        columns = torch.arange(1, batch.mask.shape[1], device=valid.device)
        inside = (columns >= torch.tensor(starts, device=valid.device)[:, None]).to(valid.dtype)
        return (losses * inside).sum(1), (valid * inside).sum(1)

    def predicted(self, batch: Batch) -> Tensor:
        """Where a column but the first is a token that the model predicts, (rows, length - 1) of 0 and 1."""
        valid = batch.mask[:, 1:].to(torch.float32)
        return valid if batch.placeholder_mask is None else valid * ~batch.placeholder_mask[:, 1:]

    def token_nll(self, batch: Batch, first: Sequence[int] | None = None) -> Tensor:
        """NLL in nats of every token but the first of each row, (rows, length - 1); differentiable.

        Zero where nothing is predicted: at the padding and at placeholders. Column k is the token in
        column k + 1 of the batch.

        Args:
            batch: the rows.
            first: for each row the first column that is asked for; what stands before it may be wrong.
                None for all.
        """
        if batch.branches is not None and self.reader is not None:
            return self.reader.nll(batch.rows, batch.branches, first) * self.predicted(batch)
        width = batch.ids.shape[1] - 1

        def read(part: Batch) -> Tensor:
            found = self.read_padded(part)
            return functional.pad(found, (0, width - found.shape[1]))

        return self.read_apart(batch, read)

    def read_padded(self, batch: Batch) -> Tensor:
        """See ``Model.read_padded``: the NLL of each token; see ``token_nll``."""
        logits = self.call(batch).logits[:, :-1]
        target = batch.ids[:, 1:]
        # The vocabulary in the last dimension: across rows, sums over large ones are off by more than 1e-4.
        losses = functional.cross_entropy(
            at_least_float32(logits).flatten(0, 1), target.flatten(), reduction="none"
        )
        return losses.view(target.shape) * self.predicted(batch)

    @cached_property
    def reader(self) -> CausalReader | None:
        """What reads rows behind their known beginnings; None where rows have to be read whole."""
        if self._plain is not None:
            return self._plain.reader
        special = {*self.tokenizer.all_special_ids, self.pad_id}
        ids = [index for index in range(len(self.embedding_table)) if index not in special][-40:]
        if len(ids) < 4 or self.max_length < 8:
            return None
        budget = token_budget(self.device, self.bytes_per_token)
        verdict = self.verdict
        if not verdict.together or verdict.causal < 8:
            return None
        reader = CausalReader.of(
            self.module, ids, budget, prefix_bytes(self.device), self.lookups, self.max_length
        )
        if reader is not None:
            reader.keeps_logits = self._keeps_logits
            # What a longer row gives, its beginnings do not.
            reader.longest = min(reader.longest, verdict.causal, verdict.border)
        return reader

    @property
    def n_unscored(self) -> int:
        """The last token: nothing is predicted from it."""
        return 1

    def prefixes(self, rows: Sequence[tuple[int, ...]]) -> list[KVPrefix] | None:
        """See ``Model.prefixes``; with the NLL of the rows' own tokens."""
        if self.reader is None or max(map(len, rows), default=0) >= self.reader.longest:
            return None
        return self.reader.prefixes(rows, nll=True)

    def match_prefixes(
        self, rows: Sequence[Sequence[int]], parents: Sequence[Sequence[int]]
    ) -> Branches | None:
        """See ``Model.match_prefixes``."""
        if self.reader is None or max(map(len, rows), default=0) > self.reader.longest:
            return None
        return super().match_prefixes(rows, parents)

    @torch.no_grad()
    def next_log_probabilities(self, rows: Sequence[Sequence[int]], reuse: bool = True) -> Tensor:
        """Log-probabilities of the token behind each row, (rows, vocabulary), at least float32.

        Args:
            rows: token ids without the begin-of-text token and the context's; a row may be empty if there
                is either.
            reuse: whether to go on from the beginnings of rows that are remembered from earlier calls.

        Raises:
            TextError: if a row and the begin-of-text token are more than the model has positions.
        """
        full = [self.row(row)[0] for row in rows]
        if not all(full):
            raise TextError(
                f"{self.name} has no begin-of-text token, so it cannot begin a text; give a prefix"
            )
        if (longest := max(map(len, full))) > self.max_length:
            raise TextError(
                f"{self.name}: a text has {longest} tokens, the model takes {self.max_length}; shorten it"
            )
        if reuse and not prefix_cache_disabled():
            return together(("next", id(self)), full, self._next_of_several)
        return self._next(full, reuse=False)

    def _next_of_several(self, asked: Sequence[list[list[int]]]) -> list[Tensor]:
        """Next-token log-probabilities of several searches' rows, in one go."""
        found = self._next([row for rows in asked for row in rows], reuse=True)
        return list(torch.split(found, [len(rows) for rows in asked]))

    @torch.no_grad()
    def _next(self, full: list[list[int]], reuse: bool) -> Tensor:
        """See `next_log_probabilities`; of rows with the begin-of-text token."""
        longest = max(map(len, full))
        if reuse and self.reader is not None and longest <= self.reader.longest:
            found = []
            for first in range(0, len(full), _ROWS_AT_ONCE):
                part = [tuple(row) for row in full[first : first + _ROWS_AT_ONCE]]
                prefixes = self.reader.prefixes(part, nll=False)
                found += [item.following for item in prefixes if item.following is not None]
            return self.of_all_ids(torch.stack(found))
        batch = self.collate(full, [(len(self.start_ids), len(row)) for row in full])
        return self.of_all_ids(self.read_apart(batch, self._following))

    def of_all_ids(self, log_probabilities: Tensor) -> Tensor:
        """Log-probabilities with a column for each row of the embedding table.

        Some models read more ids than they predict: placeholders, or tokens added to the table alone.
        """
        missing = len(self.embedding_table) - log_probabilities.shape[-1]
        return functional.pad(log_probabilities, (0, max(0, missing)), value=-torch.inf)

    def _following(self, batch: Batch) -> Tensor:
        """Log-probabilities of the token behind each row of a batch, in one pass."""
        last = torch.tensor([len(row) - 1 for row in batch.rows], device=self.device)
        keep: Tensor = last.unique()  # type: ignore[no-untyped-call]
        # The vocabulary projection is the larger half of a small model, so it runs only on the columns
        # that some row ends in; beams have nearly the same length.
        few = {"logits_to_keep": keep} if self._keeps_logits else {}
        logits = self.call(batch, **few).logits
        columns = torch.searchsorted(keep, last) if self._keeps_logits else last
        chosen = logits[torch.arange(len(last), device=self.device), columns]
        return at_least_float32(chosen).log_softmax(-1)

    @cached_property
    def _keeps_logits(self) -> bool:
        """Whether the model can be asked for the logits of some columns only."""
        return "logits_to_keep" in inspect.signature(self.module.forward).parameters
