"""What tokens read as, and whether every model reads the same text."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from tokenizers import decoders
from transformers import PreTrainedTokenizerFast

from promptfuse.models import CausalLM, Model
from promptfuse.objectives import Objective
from promptfuse.search.hypothesis import Hypothesis
from promptfuse.text.segments import spell_bytes


class RoundTrip:
    """Asks each tokenizer of an objective to read a text back from its own ids.

    What a tokenizer drops for good (case, repeated blanks) does not matter: the ids of what it decodes
    must be the ids that it gave. A text with a token that the model does not know fails, because the
    model then judges another text.

    Args:
        objective: its terms' models are asked, each once; terms without a model read any text.
    """

    def __init__(self, objective: Objective) -> None:
        found = [term.reading_model for term in objective.terms.values() if term.has_model]
        self.models = list({id(model): model for model in found}.values())
        self._known: dict[str, bool] = {}

    def holds(self, text: str) -> bool:
        """Whether every model reads the text back; remembered, since beams are asked about repeatedly."""
        if text not in self._known:
            if len(self._known) > 65536:
                self._known.clear()
            self._known[text] = all(reads_back(model, text) for model in self.models)
        return self._known[text]

    def refusal(self, text: str) -> str | None:
        """Which model reads a text as what, in words; None if every model reads it back."""
        for model in self.models:
            if not reads_back(model, text):
                (again,) = model.decode(_own_ids(model, [text]))
                return f"{model.name} reads it as {again!r}"
        return None


def reads_back(model: Model, text: str) -> bool:
    """Whether a model's tokenizer gives the same ids for what it decodes from them."""
    (ids,) = _own_ids(model, [text])
    if model.tokenizer.unk_token_id in ids:
        return False
    (again,) = model.decode([ids])
    return again == text or _own_ids(model, [again]) == [ids]


def _own_ids(model: Model, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts without special tokens."""
    if isinstance(model, CausalLM):
        return [list(ids) for ids in model.cached_ids(texts)]
    rows, content = model.encode_cached(texts)
    return [row[start:stop] for row, (start, stop) in zip(rows, content, strict=True)]


_PIECES: WeakKeyDictionary[Model, list[str | None]] = WeakKeyDictionary()
"""Made once for all searches with a model."""


def pieces_of(model: Model) -> list[str | None]:
    """What each token adds to a text that it follows, whatever that text is.

    Known for byte-level vocabularies, in which a token is a run of bytes.

    Returns:
        For each id its text; None for added tokens and for tokens that are no whole characters. Nothing
        at all for other vocabularies.
    """
    if isinstance(model, CausalLM):
        model = model.plain
    if model not in _PIECES:
        _PIECES[model] = _find_pieces(model)
    return _PIECES[model]


def _find_pieces(model: Model) -> list[str | None]:
    tokenizer = model.tokenizer
    backend = tokenizer.backend_tokenizer
    plain = type(tokenizer)._decode is PreTrainedTokenizerFast._decode
    # Some, like CLIP's, put a function of their own in the place of the decoder's.
    plain = plain and "decode" not in getattr(backend, "__dict__", {})
    if not plain or not isinstance(backend.decoder, decoders.ByteLevel):
        return []
    vocabulary = tokenizer.get_vocab()
    pieces: list[str | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
    added = tokenizer.get_added_vocab()
    for token, index in vocabulary.items():
        if token not in added:
            pieces[index] = spell_bytes(token)
    return pieces


def appended(
    model: CausalLM, beams: Sequence[Hypothesis], pairs: Sequence[tuple[int, int]]
) -> list[str | None]:
    """The texts of beams with a token after them.

    Args:
        model: the language model whose tokens they are.
        beams: texts that are what their ids decode to.
        pairs: numbers of beams, and tokens.

    Returns:
        For each pair the text that its ids decode to; None where that has other ids.
    """
    pieces = [] if any("\ufffd" in beam.text for beam in beams) else pieces_of(model)
    # The first token after a context may bring a blank that is not part of the text.
    known = [
        pieces[token] if token < len(pieces) and (beams[number].ids or not model.pending) else None
        for number, token in pairs
    ]
    rest = [
        (*beams[number].ids, token)
        for (number, token), piece in zip(pairs, known, strict=True)
        if piece is None
    ]
    decoded = iter(model.decode(rest))
    texts = [
        next(decoded) if piece is None else beams[number].text + piece
        for (number, _), piece in zip(pairs, known, strict=True)
    ]
    return [
        text if len(ids) and ids[-1] == token and ids[:-1] == beams[number].ids else None
        for (number, token), text, ids in zip(pairs, texts, model.cached_ids(texts), strict=True)
    ]
