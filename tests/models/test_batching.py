from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from promptfuse.models import Batch
from promptfuse.models.batching import (
    FEWEST_TOKENS,
    available_bytes,
    bytes_per_token,
    cut,
    cut_branches,
    out_of_memory,
    run_halving,
    token_budget,
)
from promptfuse.objectives import Fluency

TEXTS = ["A brown dog runs.", "dog", "Two children are playing", "a dog", "the best film", "Café"]


def spans(ends: list[int]) -> list[range]:
    return [range(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]


@given(st.lists(st.integers(1, 80), max_size=200), st.integers(1, 600), st.none() | st.integers(1, 50))
def test_cuts_keep_to_the_budget(lengths: list[int], budget: int, most: int | None) -> None:
    lengths.sort()
    ends = cut(lengths, budget, most)
    assert [index for span in spans(ends) for index in span] == list(range(len(lengths)))
    for span in spans(ends):
        rows = [lengths[index] for index in span]
        assert len(rows) == 1 or max(rows) * len(rows) <= budget
        assert most is None or len(rows) <= most


def test_long_rows_do_not_widen_many_short_ones() -> None:
    lengths = [8] * 100 + [64] * 4
    assert cut(lengths, 10**6) == [100, 104]
    # A few rows are not worth a batch of their own.
    assert cut([8] * 4 + [64] * 4, 10**6) == [8]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=200), st.integers(1, 60))
def test_branches_are_cut_between_prefixes(branches: list[tuple[int, int]], budget: int) -> None:
    branches.sort()
    prefix_index, fresh = [owner for owner, _ in branches], [tokens for _, tokens in branches]
    ends = cut_branches(fresh, prefix_index, budget, 40)
    assert [index for span in spans(ends) for index in span] == list(range(len(branches)))
    for span in spans(ends):
        assert len(span) == 1 or sum(fresh[index] for index in span) <= budget
        assert len(span) <= 40


def test_a_prefix_that_fills_half_a_batch_has_it_alone() -> None:
    assert cut_branches([2] * 20, [0] * 10 + [1] * 10, 38) == [10, 20]
    assert cut_branches([2] * 20, [0] * 10 + [1] * 10, 400) == [20]


def test_the_budget_follows_the_model(model: Callable[..., Any]) -> None:
    narrow, wide = model("bert").bytes_per_token, model("gpt2").bytes_per_token
    assert wide > narrow + 4 * len(model("gpt2").embedding_table)  # Its logits.
    config = model("bert").module.config
    assert bytes_per_token(config, 2) == bytes_per_token(config, 4) // 2
    cpu = torch.device("cpu")
    assert token_budget(cpu, 2**40) == FEWEST_TOKENS
    assert FEWEST_TOKENS < token_budget(cpu, 1000) <= available_bytes(cpu)


def test_errors_that_mean_no_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58)
    assert out_of_memory(caught.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_halves_are_run_in_order() -> None:
    seen = []

    def run(start: int, stop: int) -> Tensor:
        seen.append(stop - start)
        if stop - start > 3:
            torch.empty(2**58)
        return torch.arange(start, stop)

    assert torch.cat(run_halving(run, 2, 19)).tolist() == list(range(2, 19))
    assert seen[0] == 17
    assert max(seen[1:]) < 17


def test_what_does_not_fit_alone_and_other_errors_are_raised() -> None:
    calls = []

    def run(start: int, stop: int) -> Tensor:
        calls.append((start, stop))
        return torch.empty(2**58) if fail == "memory" else torch.ones(2) @ torch.ones(3)

    fail = "memory"
    with pytest.raises(RuntimeError, match="allocate"):
        run_halving(run, 0, 4)
    assert len(calls) == 3
    calls.clear()
    fail = "shape"
    with pytest.raises(RuntimeError, match="size"):
        run_halving(run, 0, 4)
    assert len(calls) == 1


@pytest.mark.parametrize("parents", [None, ["a"] * len(TEXTS)])
def test_scores_do_not_depend_on_the_memory(parents: list[str] | None, model: Callable[..., Any]) -> None:
    class Tight(Fluency):
        most = 2

        def outputs(self, batch: Batch) -> Tensor:
            sizes.append(len(batch.ids))
            if len(batch.ids) > self.most:
                torch.empty(2**58)
            return super().outputs(batch)

    sizes: list[int] = []
    term = Tight(model("gpt2"))
    exact = [term.exact(text) for text in TEXTS]
    sizes.clear()
    assert term.score(TEXTS, parents=parents).tolist() == pytest.approx(exact, abs=1e-5)
    assert max(sizes) > term.most
    assert {1, 2} & set(sizes)
