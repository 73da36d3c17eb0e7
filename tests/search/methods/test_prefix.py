"""The prefix: a proposer says which texts keep it, and a search scores no others."""

from dataclasses import dataclass

import pytest

import promptfuse as pf
from promptfuse.search.methods import EditProposer, Method, Proposal, Proposed, SearchContext
from tests.search.conftest import FREE


@pytest.fixture(scope="module")
def fluent(model) -> pf.Objective:
    return pf.Objective(pf.Fluency(model("gpt2")))


class WordsProposer(EditProposer):
    def initial_texts(self):
        return [self.after_prefix("dog runs")]

    def propose(self, beams):
        texts = ["dog A brown runs", "A dog brown runs", "A brown runs dog"]
        rows = self.primary.plain_ids(texts)
        found = [Proposal(text, tuple(row), None, 0) for text, row in zip(texts, rows, strict=True)]
        return Proposed(found, [])


@dataclass(frozen=True)
class Words(Method):
    def proposer(self, context):
        return WordsProposer(context)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A brown dog runs", True),
        ("A brown", True),
        ("A brown, old dog", True),
        ("A brownish dog", False),
        ("dog A brown runs", False),
        ("A dog brown runs", False),
        (" A brown dog", False),
        ("A brown zebra", False),  # It breaks a rule.
    ],
)
def test_a_proposer_says_which_texts_keep_the_prefix_and_the_rules(fluent, text, kept):
    rules = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False, banned=("zebra",))
    proposer = WordsProposer(SearchContext(fluent, rules, "A brown", 2, 0))
    (ids,) = proposer.encode([text])
    assert (ids is not None) == kept
    assert ids is None or ids == tuple(fluent.primary.plain_ids([text])[0])
    assert proposer.leaves_prefix(text) == (kept or "zebra" in text)


def test_without_a_prefix_every_text_that_keeps_the_rules_is_kept(fluent):
    proposer = WordsProposer(SearchContext(fluent, FREE, "", 2, 0))
    texts = ["dog A brown runs", "A brownish dog"]
    assert proposer.encode(texts) == proposer.context.encode(texts)
    assert proposer.encode([]) == []


def test_the_search_takes_no_text_without_the_prefix(fluent):
    seen = []
    search = pf.Search(fluent, Words(), pf.BeamSearch(8), prefix="A brown", steps=1, constraints=FREE)
    observe = search.proposer.observe
    search.proposer.observe = lambda proposals, losses: (seen.extend(proposals), observe(proposals, losses))
    search.step()
    assert [item.text for item in seen] == ["A brown dog runs", "A brown runs dog"]
    assert {beam.text for beam in search.beams} == {"A brown runs dog"}
