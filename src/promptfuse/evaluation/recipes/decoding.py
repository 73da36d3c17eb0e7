"""What recipes share that read a language model token by token."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from promptfuse._utils.batched_calls import batched_call
from promptfuse.errors import TextError
from promptfuse.evaluation.recipes.caches import Layers, keeps_cache, read_after
from promptfuse.models import Batch, CausalLM
from promptfuse.models.precision import at_least_float32
from promptfuse.objectives import Objective
from promptfuse.search import Constraints
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.sentences import SENTENCE_ENDS, sentence_ending

LONG = 512
"""More tokens than a text has that is decoded here."""


@dataclass(frozen=True)
class Reading:
    """What a language model makes of rows.

    Attributes:
        layers: keys and values of all tokens read so far; where a language model has none that could be
            taken hold of, one layer of the tokens themselves, which are then read again each time.
        log_probabilities: of the token after each row, (rows, vocabulary), at least float32.
        hidden: last hidden states of the new tokens, (rows, new, d).
    """

    layers: Layers
    log_probabilities: Tensor
    hidden: Tensor

    def of(self, rows: Tensor) -> Reading:
        """Some of the rows, in the order given, one as often as it occurs."""
        return Reading(pick(self.layers, rows), self.log_probabilities[rows], self.hidden[rows])


def pick(layers: Layers, rows: Tensor) -> Layers:
    """Keys and values of some rows."""
    return tuple((keys[rows], values[rows]) for keys, values in layers)


def read(lm: CausalLM, ids: Tensor, past: Layers = (), cached: bool | None = None) -> Reading:
    """Read tokens after what was read before, with other photos' where these are as far.

    Args:
        lm: the language model.
        ids: (rows, new), equally many new tokens for each row.
        past: keys and values of the tokens before; empty for none.
        cached: whether keys and values are wanted rather than the tokens; None where either will do.

    Raises:
        TextError: if the model has no positions left.
    """
    before = past[0][0].shape[2] if past else 0
    # Keys after which a longer row would be turned by other angles are of no use there.
    plain = _is_plain(past) if past else not cached and not (keeps_cache(lm) and lm.verdict.border >= LONG)
    most = lm.max_length if plain else min(lm.max_length, lm.verdict.border)
    if before + ids.shape[1] > most:
        raise TextError(
            f"{lm.name}: a text has {before + ids.shape[1]} tokens, the model takes {most}; take fewer steps"
        )
    past = past or (_as_layers(ids[:, :0]) if plain else ())
    asked = (lm, ids, past)
    return batched_call(("read", id(lm), before, ids.shape[1], plain), asked, _read_together)


def _as_layers(ids: Tensor) -> Layers:
    """Tokens, (rows, length), in the place of keys and values."""
    return ((ids[:, None, :, None], ids[:, None, :, None]),)


def _is_plain(past: Layers) -> bool:
    """Whether there are tokens in the place of keys and values."""
    return bool(past) and not past[0][0].is_floating_point()


@torch.no_grad()
def _read_together(asked: Sequence[tuple[CausalLM, Tensor, Layers]]) -> list[Reading]:
    """Readings of several photos' rows, in one go."""
    lm = asked[0][0]
    ids = torch.cat([one for _, one, _ in asked])
    with lm.fast_products():
        found = forward(lm, ids, join([past for _, _, past in asked]))
    if len(asked) == 1:
        return [found]
    bounds = torch.tensor([0] + [len(one) for _, one, _ in asked]).cumsum(0).tolist()
    return [found.of(torch.arange(*ends, device=ids.device)) for ends in pairwise(bounds)]


def join(parts: Sequence[Layers]) -> Layers:
    """Keys and values of the rows of several, one after the other."""
    return tuple(
        (torch.cat([keys for keys, _ in same]), torch.cat([values for _, values in same]))
        for same in zip(*parts, strict=True)
    )


def forward(lm: CausalLM, ids: Tensor, past: Layers) -> Reading:
    """One forward pass, differentiable with respect to ``past``: `read` for one group of rows."""
    if _is_plain(past):
        whole = torch.cat([past[0][0][:, 0, :, 0], ids], 1)
        rows = whole.tolist()
        logits, hidden = _read_plain(lm, lm.collate(rows, [(0, len(row)) for row in rows]))
        layers = _as_layers(whole)
    else:
        layers, found = read_after(lm.module, ids, past)
        logits, hidden = found.logits, found.hidden_states[-1]
    scores = lm.of_all_ids(at_least_float32(logits[:, -1]).log_softmax(-1))
    return Reading(layers, scores, at_least_float32(hidden[:, -ids.shape[1] :]))


def _read_plain(lm: CausalLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """The logits, and the last hidden states, (rows, length, d): what the output embeddings are given.

    Not every model gives its states of that shape or at all: Gemma 3n carries several of each token.
    """
    given: list[Tensor] = []

    def look(module: object, args: tuple[Any, ...]) -> None:
        given.append(args[0])

    head = lm.module.get_output_embeddings()
    with head.register_forward_pre_hook(look) if head is not None else nullcontext():
        found = lm.call(batch, output_hidden_states=True)
    states = getattr(found, "hidden_states", None)
    if states is not None and states[-1].shape[:-1] == batch.ids.shape:
        return found.logits, states[-1]
    return found.logits, given[-1]


class Language:
    """The language model of an objective, and which of its texts may be captions.

    The rules are those of the search: printable ASCII, no pair of words twice, no word after itself, and
    the tokenizer reads a text back to the tokens that made it.

    Args:
        objective: the objective. What its fluency reads before a text stands before all that is decoded.
        prefix: what every caption begins with.
        glue: whether the first new token may go on with the prefix's last word.
    """

    def __init__(self, objective: Objective, prefix: str, glue: bool = False) -> None:
        self.lm = objective.primary
        self.setting = SearchContext(objective, Constraints(), prefix.strip(), 1, 0, glue=glue)

    @property
    def start(self) -> list[int]:
        """What stands in front of the first token that is chosen.

        Raises:
            TextError: if there is nothing.
        """
        if not (start := [*self.lm.start_ids, *self.setting.prefix_ids]):
            raise TextError(f"{self.lm.name} has no begin-of-text token; give a prefix to begin with")
        return start

    @property
    def stops(self) -> Tensor:
        """(vocabulary,), true at tokens that may end a sentence: its mark, or the end of text."""
        return _marks(self.lm)[0].to(self.lm.device)

    @property
    def inner(self) -> Tensor:
        """(vocabulary,), true at tokens that may stand within a sentence."""
        return (self.setting.allowed & ~_marks(self.lm)[1]).to(self.lm.device)

    @property
    def first(self) -> Tensor:
        """(vocabulary,), true at tokens that may stand right after the prefix."""
        return (self.setting.first & ~_marks(self.lm)[1]).to(self.lm.device)

    @property
    def usable(self) -> Tensor:
        """(vocabulary,), true at tokens that may stand within a sentence or end it."""
        return self.inner | (self.stops & (self.setting.allowed | _ended(self.lm)).to(self.lm.device))

    def texts(self, rows: Sequence[Sequence[int]]) -> list[str | None]:
        """Texts of rows without the begin-of-text token; None where one breaks a rule or has no word."""
        setting = self.setting
        return [
            text
            if text is not None
            and text.strip()
            and text.strip() != setting.prefix
            and setting.leaves_prefix(text)
            else None
            for text in setting.decode(rows)
        ]

    def ends(self, row: Sequence[int]) -> bool:
        """Whether the last token of a row after the prefix ends its text, which "." does not after "Mr"."""
        if row[-1] in self.lm.end_ids or not bool(_marks(self.lm)[0][row[-1]]):
            return row[-1] in self.lm.end_ids
        (text,) = self.lm.decode([[*self.setting.prefix_ids, *row]])
        return sentence_ending(text) not in ("going", "ellipsis")

    def closed(self, row: Sequence[int]) -> tuple[list[int], bool]:
        """A row without the end-of-text token, and whether it is complete."""
        complete = bool(row) and self.ends(row)
        return [token for token in row if token not in self.lm.end_ids], complete


_MARKS: WeakKeyDictionary[CausalLM, tuple[Tensor, Tensor]] = WeakKeyDictionary()
"""Made once for all photos: looking at each token takes longer than a step."""


def _marks(lm: CausalLM) -> tuple[Tensor, Tensor]:
    """Which tokens end a sentence, and which have a mark of its end anywhere, (vocabulary,) each."""
    if lm not in _MARKS:
        rows = len(lm.embedding_table)
        count = min(len(lm.tokenizer), rows)
        texts = lm.tokenizer.batch_decode([[index] for index in range(count)]) + [""] * (rows - count)
        closing = torch.tensor([text.rstrip().endswith(SENTENCE_ENDS) for text in texts])
        marked = torch.tensor([any(end in text for end in SENTENCE_ENDS) for text in texts])
        _MARKS[lm] = closing | _ended(lm), marked
    return _MARKS[lm]


def _ended(lm: CausalLM) -> Tensor:
    """(vocabulary,), true at the tokens that end a text."""
    ended = torch.zeros(len(lm.embedding_table), dtype=torch.bool)
    ended[[index for index in lm.end_ids if index < len(ended)]] = True
    return ended
