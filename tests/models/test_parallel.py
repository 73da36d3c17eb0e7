"""Pieces of work on several threads: what comes out, what each thread is allowed, and the same losses."""

import threading
from contextvars import ContextVar

import pytest
import torch
from PIL import Image

import promptfuse as pf
from promptfuse.models import parallel
from promptfuse.models.batching import even_budget
from promptfuse.models.parallel import on_threads, threads_worth
from promptfuse.models.prefix import reading_whole
from promptfuse.objectives import base

MARK = ContextVar("mark", default=0)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_are_in_order_and_every_thread_has_one_core(two_threads):
    both = threading.Barrier(2, timeout=60)

    def work(number):
        both.wait()  # Passes only if two pieces run at the same time.
        return number, torch.get_num_threads(), threading.get_ident()

    found = on_threads([lambda number=number: work(number) for number in range(4)], 2)
    assert [number for number, _, _ in found] == [0, 1, 2, 3]
    assert {cores for _, cores, _ in found} == {1}
    assert len({thread for _, _, thread in found}) == 2
    assert torch.get_num_threads() == 2


def test_one_thread_or_one_piece_is_done_at_once(two_threads):
    here = threading.get_ident()
    assert on_threads([threading.get_ident, threading.get_ident], 1) == [here, here]
    assert on_threads([threading.get_ident], 2) == [here]
    assert on_threads([torch.get_num_threads], 2) == [2]
    assert on_threads([], 2) == []


@pytest.mark.parametrize("grads", [False, True])
def test_pieces_have_the_context_and_the_grad_mode_of_the_caller(grads, two_threads):
    both = threading.Barrier(2, timeout=60)
    token = MARK.set(7)
    with torch.set_grad_enabled(grads):
        found = on_threads([lambda: (both.wait() >= 0, MARK.get(), torch.is_grad_enabled())] * 2, 2)
    MARK.reset(token)
    assert found == [(True, 7, grads)] * 2


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_an_error_comes_out_when_all_have_stopped(failing, two_threads):
    running = [0]

    def work(number):
        running[0] += 1
        try:
            if number == failing:
                raise ValueError(f"piece {number}")
        finally:
            running[0] -= 1

    with pytest.raises(ValueError, match=f"piece {failing}"):
        on_threads([lambda number=number: work(number) for number in range(4)], 2)
    assert running == [0]
    assert torch.get_num_threads() == 2


def test_threads_are_for_work_that_is_worth_them(two_threads):
    cpu = torch.device("cpu")
    assert threads_worth(cpu, 2 * parallel.SHARE) == 2
    assert threads_worth(cpu, 2 * parallel.SHARE - 1) == 1
    assert threads_worth(torch.device("cuda"), 10**12) == 1


def test_batches_for_threads_are_of_one_size():
    assert even_budget(2000, 5000, 1) == 2000
    assert even_budget(2000, 5000, 2) == 1000
    assert even_budget(2000, 900, 2) == 500
    assert even_budget(2000, 5000, 100) == 256  # As small as is worth a pass.
    assert even_budget(0, 5000, 2) == 5000


def test_losses_are_those_of_one_thread(two_threads, monkeypatch):
    monkeypatch.setattr(base, "token_budget", lambda device, per_token: 40)
    monkeypatch.setattr("promptfuse.models.batching.FEWEST_TOKENS", 16)
    mini_clip = pf.load_model("mini-clip")
    term = pf.ImageSimilarity(mini_clip, Image.new("RGB", (64, 64), "teal"))
    words = [" dog", " cats", " sitting", " unbelievably", "s", " x.", " on the"]
    parents = ["a photo of a", "two men", "snow"]
    texts = [parent + word for parent in parents for word in words]
    grown_from = [parent for parent in parents for _ in words]
    with reading_whole():
        expected = term.score(texts)
    used = []

    def watched(works, threads):
        used.append((len(works), threads))
        return on_threads(works, threads)

    monkeypatch.setattr(base, "on_threads", watched)
    alone = term.score(texts, parents=grown_from)
    monkeypatch.setattr(parallel, "SHARE", 1)
    found = term.score(texts, parents=grown_from)
    assert [threads for _, threads in used] == [1, 2]
    assert used[1][0] > 1
    assert torch.allclose(alone, expected, atol=1e-5)
    assert torch.allclose(found, expected, atol=1e-5)
