"""Searches side by side: answers as if alone, work in one go, errors where they belong."""

import threading

import pytest

from promptfuse._utils.batched_calls import batched_call
from promptfuse.errors import TextError
from promptfuse.models import disable_prefix_cache, prefix_cache_disabled
from promptfuse.search.scheduler import BatchScheduler


class Doubler:
    """Doubles numbers; refuses 13."""

    def __init__(self):
        self.batches = []

    def joint(self, numbers):
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise TextError("13: no such floor")
        return [2 * number for number in numbers]

    def __call__(self, number):
        return batched_call("double", number, self.joint)


def test_alone_there_is_nobody_to_wait_for():
    doubler = Doubler()
    assert doubler(4) == 8
    assert doubler.batches == [[4]]


def test_work_is_done_in_one_go_and_everybody_gets_their_own():
    doubler, found = Doubler(), {}

    def worker(start):
        def run():
            found[start] = [doubler(start + k) for k in range(3)]

        return run

    meeting = BatchScheduler()
    meeting.run([worker(start) for start in (0, 100, 200)])
    assert found == {start: [2 * (start + k) for k in range(3)] for start in (0, 100, 200)}
    assert doubler.batches == [[0, 100, 200], [1, 101, 201], [2, 102, 202]]
    assert (meeting.rounds, meeting.calls) == (3, 9)


def test_members_that_fall_out_of_step_catch_up():
    doubler, other = Doubler(), Doubler()

    def late():
        batched_call("other", 1, other.joint)
        for k in range(4):
            doubler(k)

    def early():
        for k in range(4):
            doubler(k)

    BatchScheduler().run([late, early, early])
    # The two first go ahead, or wait once; from then on all three ask together or the early ones are done.
    assert sum(map(len, doubler.batches)) == 12
    assert len(doubler.batches) <= 8
    assert other.batches == [[1]]


def test_members_end_when_they_like():
    doubler, found = Doubler(), []

    def worker(times):
        return lambda: found.extend(doubler(k) for k in range(times))

    BatchScheduler().run([worker(times) for times in (1, 5, 0, 3)])
    assert sorted(found) == sorted(2 * k for times in (1, 5, 0, 3) for k in range(times))


def test_an_error_is_that_of_the_piece_which_is_wrong():
    doubler, found = Doubler(), {}

    def worker(number):
        def run():
            try:
                found[number] = doubler(number)
            except TextError as error:
                found[number] = str(error)

        return run

    BatchScheduler().run([worker(number) for number in (12, 13, 14)])
    assert found == {12: 24, 13: "13: no such floor", 14: 28}


def test_a_failure_stops_all_and_comes_out():
    doubler = Doubler()

    def endless():
        while True:
            doubler(1)

    def failing():
        doubler(2)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        BatchScheduler().run([endless, failing, endless])


def test_a_failure_of_the_joint_work_comes_out_too():
    def broken(payloads):
        raise ZeroDivisionError(len(payloads))

    with pytest.raises(ZeroDivisionError):
        BatchScheduler().run([lambda: batched_call("broken", 1, broken)] * 2)


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_members_may_ask_while_they_are_stopped(kind):
    doubler = Doubler()

    def tidy():
        try:
            while True:
                doubler(1)
        finally:
            doubler(2)

    def failing():
        doubler(3)
        raise kind

    before = threading.active_count()
    with pytest.raises(kind):
        BatchScheduler().run([tidy, failing, tidy])
    assert threading.active_count() == before


def test_an_interrupt_of_the_one_who_answers_stops_all():
    def interrupted(payloads):
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        BatchScheduler().run([lambda: batched_call("interrupted", 1, interrupted)] * 3)
    assert threading.active_count() == before


def test_a_meeting_can_be_held_again():
    meeting, doubler, found = BatchScheduler(), Doubler(), []
    for _ in range(2):
        meeting.run([lambda: found.append(doubler(1))])
    assert found == [2, 2]


def test_only_one_is_ever_busy():
    doubler, busy, most = Doubler(), [], []

    def worker():
        for number in range(10):
            busy.append(number)
            most.append(len(busy))
            sum(range(2000))
            busy.pop()
            doubler(number)

    BatchScheduler().run([worker] * 5)
    assert max(most) == 1


def test_work_is_done_as_its_asker_would_do_it():
    found = {}

    def joint(payloads):
        return [(payload, prefix_cache_disabled(), len(payloads)) for payload in payloads]

    def whole():
        with disable_prefix_cache():
            found["whole"] = batched_call("mode", 1, joint)

    BatchScheduler().run([whole, lambda: found.update(plain=batched_call("mode", 2, joint))])
    assert found == {"whole": (1, True, 1), "plain": (2, False, 1)}


def test_what_is_asked_within_the_work_is_answered_at_once():
    doubler = Doubler()
    found = []
    BatchScheduler().run(
        [lambda: found.append(batched_call("outer", 3, lambda all_: [doubler(one) for one in all_]))] * 2
    )
    assert found == [6, 6]
