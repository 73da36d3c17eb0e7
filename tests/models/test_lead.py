"""What a text's tokens are behind a string that always stands before it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from promptfuse.models.lead import Lead


@pytest.fixture
def blanks() -> PreTrainedTokenizerFast:
    """A tokenizer that reads every line break as a blank, as XGLM's and T5's do."""
    words = ["▁A", "▁dog", "▁cat", ".", "A", "dog", "cat", "▁", "d", "o", "g"]
    vocab = [("<unk>", 0.0), *((word, -1.0 - index) for index, word in enumerate(words))]
    tokenizer = Tokenizer(Unigram(vocab, unk_id=0))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("text", ["A dog.\n", "A dog.\n\n", "A dog. \t\n", "A dog."])
def test_a_line_break_that_is_read_as_a_blank_belongs_to_the_first_word(
    blanks: PreTrainedTokenizerFast, text: str
) -> None:
    def encode(texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(ids) for ids in blanks(list(texts), add_special_tokens=False)["input_ids"]]

    lead = Lead(text, "" if text.endswith("\n") else " ", blanks, blanks.batch_decode)
    assert blanks.convert_ids_to_tokens(list(lead.ids)) == ["▁A", "▁dog", "."]
    (ids,) = lead.encode(["A cat"], encode)
    assert (*lead.ids, *ids) == encode([f"{text.rstrip()} A cat"])[0]
    assert lead.decode([ids]) == ["A cat"]
    assert lead.spans("A cat") == [(0, 1), (1, 5)]
