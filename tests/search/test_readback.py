"""Tokens behind texts: what is put together is what the tokenizer decodes and reads back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from promptfuse.models import disable_prefix_cache
from promptfuse.search.hypothesis import Hypothesis
from promptfuse.search.readback import appended, pieces_of

BEAMS = ("A brown dog runs", "Two children", "A", "a caf\u00e9 in")


def by_the_book(lm: Any, beam: Hypothesis, token: int) -> str | None:
    row = [*beam.ids, token]
    text: str = lm.tokenizer.decode(row, clean_up_tokenization_spaces=False)
    return text if lm.plain_ids([text])[0] == row else None


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "llama", "opt"])
def test_appended_tokens_are_what_the_tokenizer_decodes(name: str, model: Callable[..., Any]) -> None:
    lm = model(name)
    beams = []
    for text in BEAMS:
        (ids,) = lm.plain_ids([text])
        if lm.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text:
            beams.append(Hypothesis(text, tuple(ids), None))
    assert beams
    pairs = [(number, token) for number in range(len(beams)) for token in range(len(lm.tokenizer))]
    expected = [by_the_book(lm, beams[number], token) for number, token in pairs]
    for _ in range(2):  # Afresh, and with what has been remembered.
        assert appended(lm, beams, pairs) == expected
    with disable_prefix_cache():
        assert appended(lm, beams, pairs) == expected
    assert 0 < sum(text is not None for text in expected) < len(expected)


def test_a_half_character_is_no_piece(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    pieces = pieces_of(lm)
    assert pieces[lm.tokenizer.eos_token_id] is None
    assert None in [pieces[index] for index in range(256)]
    # The end of a text may be the first byte of a character that the next token completes.
    ids = lm.plain_ids(["caf\u00e9"])[0]
    half = Hypothesis(lm.decode([ids[:-1]])[0], tuple(ids[:-1]), None)
    pairs = [(0, token) for token in range(len(lm.tokenizer))]
    assert appended(lm, [half], pairs) == [by_the_book(lm, half, token) for _, token in pairs]


def test_a_tokenizer_that_is_not_byte_level_has_no_pieces(model: Callable[..., Any]) -> None:
    assert pieces_of(model("llama")) == []
    assert pieces_of(model("clip")) == []  # Its words end with a blank.
