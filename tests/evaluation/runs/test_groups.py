"""Groups: the captions of one photo at a time, and the same bits whatever was before."""

from dataclasses import replace

import pytest

from promptfuse.evaluation.datasets import Photo
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.evaluation.runs.groups import Group, describe_group, make_groups
from tests.evaluation.runs.conftest import PHOTOS, QUICK, SAMPLES

SET = [Photo(path.stem, str(path)) for path in PHOTOS[:5]]


def lines(describer, group):
    found = []
    work = describe_group(describer, group, found.append)
    assert sum(line.seconds for line in found) == pytest.approx(work.seconds, rel=0.05, abs=0.01)
    assert work.peak_memory_bytes > 10**8
    return {line.id: replace(line, seconds=0.0) for line in found}


@pytest.fixture(scope="module", params=[QUICK, {**QUICK, "sentiment": "positive"}, SAMPLES])
def describer(request):
    describer = load_recipe(request.param).build()
    describer.load()
    return describer


def test_groups_are_cut_by_place_and_seeds_follow_the_data_set():
    photos = [Photo(str(number), f"{number}.jpg") for number in range(100, 107)]
    groups = make_groups(photos, 3, seed=40, start=100)
    assert [[photo.id for photo in group.photos] for group in groups] == [
        ["100", "101", "102"],
        ["103", "104", "105"],
        ["106"],
    ]
    assert [group.number for group in groups] == [0, 1, 2]
    assert [group.seeds for group in groups] == [(140, 141, 142), (143, 144, 145), (146,)]


@pytest.mark.slow
def test_lines_are_the_recipe_photo_by_photo_and_the_same_bits_each_time(describer):
    one, other = make_groups(SET, 3, seed=7)
    first = lines(describer, one)
    assert list(lines(describer, other)) != list(first)
    assert lines(describer, one) == first
    for photo, seed in zip(one.photos, one.seeds, strict=True):
        describer.clear_text_cache()
        alone, line = describer(photo.image, seed=seed), first[photo.id]
        assert (line.text, line.complete) == (alone.text, alone.complete)
        assert (line.exact_evaluations, line.weights) == (alone.exact_evaluations, alone.weights)
        assert line.value == pytest.approx(alone.value, abs=1e-5)
        assert line.terms == pytest.approx(alone.terms, abs=1e-5)
        assert (line.image, line.seed, line.error) == (photo.image, seed, None)


@pytest.mark.slow
def test_unreadable_photos_have_a_reason_and_the_others_their_captions(tmp_path):
    describer = load_recipe(QUICK).build()
    describer.load()
    (tmp_path / "torn.jpg").write_bytes(PHOTOS[0].read_bytes()[:500])
    (tmp_path / "text.jpg").write_text("no photo")
    bad = [Photo(name, str(tmp_path / name)) for name in ("torn.jpg", "text.jpg", "none.jpg")]
    found = lines(describer, Group(0, (bad[0], SET[0], *bad[1:]), (0, 1, 2, 3)))
    assert found[SET[0].id].text
    for photo, reason in zip(bad, ["damaged or cut short", "not an image", "no such file"], strict=True):
        assert reason in found[photo.id].error
        assert photo.image in found[photo.id].error
        assert found[photo.id].text is None
    # Nothing of it depends on who else is in the group but the last bits.
    (alone,) = lines(describer, Group(0, (SET[0],), (1,))).values()
    assert alone.text == found[SET[0].id].text
