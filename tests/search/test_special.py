"""Tokens that stand for no text are never proposed; estimates come from words that a model knows."""

import copy

import pytest
import torch
from tokenizers import AddedToken

import promptfuse as pf
from promptfuse.adapters import LexicalTransport
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.swaps import Lexicon
from promptfuse.text.segments import special_ids
from tests.search.conftest import FREE


def test_words_with_unknown_tokens_have_no_estimate(model):
    lm, tone = model("gpt2"), model("bert")
    transport = LexicalTransport(lm, tone, 2)
    unknown = tone.tokenizer.unk_token_id
    spelled = {
        token: tone.tokenizer(lm.tokenizer.decode([token]), add_special_tokens=False)["input_ids"]
        for token in range(len(lm.tokenizer))
    }
    assert any(unknown in ids for ids in spelled.values())
    assert len(transport.tokens) > 10
    assert not any(unknown in spelled[token] for token in transport.tokens.tolist())
    setting = SearchContext(pf.Objective(pf.Fluency(lm)), FREE, "", 1, 0)
    lexicon = Lexicon(setting.whole_words, tone)
    assert len(lexicon.tokens) > 10
    assert not any(unknown in spelled[token] for token in lexicon.tokens.tolist())


@pytest.mark.parametrize("mark", ["<start_of_image>", "<|tool|>", "[INST]"])
@pytest.mark.parametrize("special", [True, False])
def test_added_marks_are_special_whatever_they_are_called(model, mark, special):
    tokenizer = copy.deepcopy(model("gpt2").tokenizer)
    tokenizer.add_tokens([AddedToken(mark, special=special), AddedToken("extraordinary", special=False)])
    found = special_ids(tokenizer)
    assert tokenizer.convert_tokens_to_ids(mark) in found
    assert tokenizer.convert_tokens_to_ids("extraordinary") not in found
    assert set(tokenizer.all_special_ids) <= found


def test_special_tokens_do_not_count_as_likelier_than_the_end(model):
    lm = model("gpt2")
    objective = pf.Objective(pf.Fluency(lm))
    proposer = pf.Search(objective, pf.AutoDAN(8), prefix="A").proposer
    end, *others = sorted(lm.end_ids), range(len(lm.embedding_table))
    chances = torch.full((len(lm.embedding_table),), -9.0)
    chances[end[0]] = -1.0
    words = [index for index in others[0] if index not in special_ids(lm.tokenizer)][:4]
    chances[words] = -0.5
    assert not proposer._ends(chances, 8)
    proposer._special = words
    assert proposer._ends(chances, 8)
