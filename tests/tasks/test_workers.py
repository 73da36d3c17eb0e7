"""Captions from several processes: those of one, errors of their own, and no process left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

import promptfuse as pf
from promptfuse.tasks.workers import part_size
from tests.worker_processes import alive, needs_proc, workers_of

PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))[:5]
QUICK = {"steps": 4, "beams": 2, "candidates": 4}


@pytest.mark.slow
def test_captions_are_those_of_one_process_and_a_bad_photo_has_an_error(tmp_path):
    seen = {}
    photos = [*PHOTOS[:3], tmp_path / "none.jpg", *PHOTOS[3:]]
    with pytest.raises(pf.ImageError, match=r"none\.jpg"):
        pf.caption_many(photos, workers=2, in_flight=2, on_outcome=seen.__setitem__, **QUICK)
    assert sorted(seen) == list(range(6))
    assert isinstance(seen.pop(3), pf.ImageError)
    alone = pf.caption_many(PHOTOS, in_flight=1, **QUICK)
    found = [seen[number] for number in sorted(seen)]
    assert [result.text for result in found] == [result.text for result in alone]
    for mine, other in zip(found, alone, strict=True):
        assert mine.value == pytest.approx(other.value, abs=1e-4)
        assert [step.best.text for step in mine.history] == [step.best.text for step in other.history]
    assert workers_of(os.getpid()) == []


def test_what_cannot_go_to_other_processes_is_refused_before_any_work():
    with pytest.raises(pf.ConfigError, match="workers: must be at least 1, got 0"):
        pf.caption_many(PHOTOS, workers=0)
    with pytest.raises(pf.ConfigError, match="callbacks cannot be called from other processes"):
        pf.caption_many(PHOTOS, workers=2, callbacks=[print])
    with pytest.raises(pf.ConfigError, match="no preset 'none'"):
        pf.caption_many(PHOTOS, workers=2, models="none")


@pytest.mark.parametrize("workers", [1, 2])
def test_no_photo_is_no_caption_and_bad_settings_are_refused_all_the_same(workers):
    assert pf.caption_many([], workers=workers) == []
    with pytest.raises(pf.ConfigError, match="no sentiment 'angry'"):
        pf.caption_many([], workers=workers, sentiment="angry")
    with pytest.raises(pf.ConfigError, match="in flight: must be at least 1, got 0"):
        pf.caption_many([], workers=workers, in_flight=0)


def test_a_setting_that_cannot_travel_is_named():
    with pytest.raises(
        pf.ConfigError, match=r"cannot be sent to another process \(.*lock.*\); use workers=1"
    ):
        pf.caption_many(PHOTOS, workers=2, method=threading.Lock())


@pytest.mark.slow
def test_errors_of_workers_come_back_as_they_are():
    with pytest.raises(pf.ConfigError, match="no term 'volume'"):
        pf.caption_many(PHOTOS[:2], workers=2, weights={"volume": 1.0})


@pytest.mark.slow
def test_open_images_travel_and_a_damaged_one_does_not_matter_to_others(tmp_path):
    whole = PHOTOS[0].read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    seen = {}
    with (
        Image.open(tmp_path / "cut.jpg") as cut,
        Image.open(PHOTOS[0]) as photo,
        pytest.raises(pf.ImageError, match="image: the image is damaged or cut short"),
    ):
        pf.caption_many([cut, photo], workers=2, on_outcome=seen.__setitem__, **QUICK)
    assert isinstance(seen[0], pf.ImageError)
    assert seen[1].text == pf.caption(PHOTOS[0], **QUICK).text


@pytest.mark.slow
@needs_proc
def test_a_killed_worker_is_named():
    def kill(number, outcome):
        for process in workers_of(os.getpid())[:1]:
            os.kill(process, signal.SIGKILL)

    with pytest.raises(pf.ConfigError, match="one of 2 processes was killed"):
        pf.caption_many(PHOTOS * 8, workers=2, in_flight=1, on_outcome=kill, **QUICK)
    assert workers_of(os.getpid()) == []


@pytest.mark.slow
@needs_proc
def test_workers_end_when_a_script_without_a_guard_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import promptfuse as pf\n"
        f"pf.caption_many({[str(photo) for photo in PHOTOS] * 100}, workers=2, in_flight=1, "
        "on_outcome=lambda number, outcome: print(number, flush=True), steps=3)\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip().isdigit()
        workers = workers_of(process.pid)
        assert len(workers) == 2
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    until = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_parts_are_even_and_not_all_at_once():
    assert part_size(1000, 2, 8) == 32
    assert part_size(20, 2, 8) == 5
    assert part_size(1, 4, 8) == 1
    assert part_size(0, 2, 8) == 1
