"""Decoding goes on behind a full stop that ends no sentence."""

import pytest

import promptfuse as pf
from promptfuse.evaluation.recipes.decoding import Language


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("A man named Mr.", False),
        ("Once upon a time...", False),
        ("A dog.", True),
        ("A dog", False),
        ("It is 45.", True),
    ],
)
@pytest.mark.parametrize("prefix", ["", "A", "Once upon"])
def test_rows_end_where_their_sentence_does(text, ends, prefix):
    if not text.startswith(prefix):
        pytest.skip("another prefix")
    lm = pf.load_model("mini-lm")
    language = Language(pf.Objective(pf.Fluency(lm)), prefix)
    (ids,) = lm.plain_ids([text])
    row = ids[len(language.setting.prefix_ids) :]
    assert language.ends(row) is ends
    assert language.closed(row) == (row, ends)
    assert language.closed([*row, min(lm.end_ids)]) == (row, True)
