"""A language model that is asked for some columns projects only those, and gives the same numbers."""

import pytest
import torch

from promptfuse.models.base import Batch
from tests.fast_paths import needs_fast

PARENT = "A brown dog runs"
TEXTS = ["A brown dog runs through the grass.", "A brown dog sits in a park", "A dog", "Two children play"]


def branching(lm) -> Batch:
    rows, content = lm.token_rows(TEXTS)
    batch = lm.collate(rows, content)
    branches = lm.match_prefixes(rows, lm.unterminated_rows([PARENT] * len(TEXTS)))
    assert branches is not None
    return Batch(batch.ids, batch.mask, batch.text_spans, branches=branches)


@needs_fast
@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "qwen2", "gpt-neox"])
@torch.no_grad()
def test_asked_columns_are_those_of_whole_rows(name, model):
    lm = model(name)
    batch = branching(lm)
    whole = lm.token_nll(lm.encode(TEXTS))
    lengths = [len(row) for row in batch.rows]
    projected = []
    head = lm.module.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: projected.append(args[0].shape[:-1]))
    for first in ([0] * 4, [length - 2 for length in lengths], [length // 2 for length in lengths], lengths):
        projected.clear()
        found = lm.token_nll(batch, first)
        for row, start in enumerate(first):
            torch.testing.assert_close(found[row, start:], whole[row, start:], rtol=1e-4, atol=1e-4)
        if first == lengths:
            assert not projected  # There is nothing to read.
        else:
            # The one row that shares the whole prefix has its first prediction from there.
            known = [
                shared - (shared < len(lm.unterminated_rows([PARENT])[0]))
                for shared in batch.branches.prefix_length
            ]
            new = [
                length - 1 - max(start, column)
                for length, start, column in zip(lengths, first, known, strict=True)
            ]
            assert [shape.numel() for shape in projected] == [sum(new)]
    handle.remove()


@needs_fast
def test_gradients_come_through(model):
    lm = model("gpt2")
    batch = branching(lm)
    first = [len(row) - 2 for row in batch.rows]
    found = []
    for branches in (batch.branches, None):
        embeddings = lm.embedding(batch.ids).detach().clone().requires_grad_(True)
        if branches is None:
            with lm.embeddings_from(embeddings):
                losses = lm.token_nll(lm.encode(TEXTS))
        else:
            grown = Batch(batch.ids, batch.mask, batch.text_spans, branches=_with(branches, embeddings))
            losses = lm.token_nll(grown, first)
        asked = sum(losses[row, start] for row, start in enumerate(first))
        found.append(torch.autograd.grad(asked, embeddings)[0])
    # What is shared has been read before and takes no gradient.
    for row, (shared, length) in enumerate(
        zip(batch.branches.prefix_length, map(len, batch.rows), strict=True)
    ):
        inside = slice(shared, length)
        torch.testing.assert_close(found[0][row, inside], found[1][row, inside], rtol=1e-4, atol=1e-5)
        assert found[1][row, inside].abs().max() > 1e-4 or length - shared < 2


def _with(branches, embeddings):
    return type(branches)(branches.prefixes, branches.prefix_index, branches.prefix_length, embeddings)
