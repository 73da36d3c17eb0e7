"""Processes that share work: answers, errors as they are, and a process that is killed."""

import os
import signal

import pytest

import promptfuse as pf
from promptfuse._utils.processes import BrokenProcessPool, map_in_processes
from tests.worker_processes import needs_proc, workers_of


def make_worker():
    def work(task):
        if task == "wrong":
            raise pf.ConfigError("task: 'wrong' is not a number; give one")
        if task == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid(), 2 * task

    return work


@pytest.mark.slow
@needs_proc
def test_answers_have_the_numbers_of_their_tasks_and_no_process_is_left():
    found, who = {}, set()

    def on_answer(number, answer):
        process, found[number] = answer
        who.add(process)

    map_in_processes(make_worker, iter(range(9)), on_answer, count=2, threads=1)
    assert found == {number: 2 * number for number in range(9)}
    assert os.getpid() not in who
    assert workers_of(os.getpid()) == []
    map_in_processes(make_worker, [], on_answer, count=2, threads=1)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    ("task", "error", "said"),
    [
        ("wrong", pf.ConfigError, "'wrong' is not a number; give one"),
        ("killed", BrokenProcessPool, "terminated"),
    ],
)
def test_an_error_or_a_kill_ends_the_work(task, error, said):
    with pytest.raises(error, match=said):
        map_in_processes(make_worker, [1, task], lambda number, answer: None, count=1, threads=1)
    assert workers_of(os.getpid()) == []
