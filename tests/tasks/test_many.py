"""Several photos in flight: the captions of one at a time, fewer passes, errors of their own."""

import gc
import threading
import weakref
from pathlib import Path

import pytest

import promptfuse as pf
from promptfuse.search.scheduler import BatchScheduler
from promptfuse.tasks import caption_all, caption_each, caption_many

PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))[:5]
QUICK = {"steps": 5, "beams": 2, "candidates": 6}


@pytest.fixture(scope="module")
def captioner():
    return pf.Captioner("mini")


@pytest.fixture(scope="module")
def alone(captioner):
    return [captioner(photo, sentiment="positive", **QUICK) for photo in PHOTOS]


@pytest.mark.parametrize("in_flight", [1, 2, 5, 9])
def test_captions_are_those_of_one_at_a_time(captioner, alone, in_flight):
    together = caption_all(captioner, PHOTOS, in_flight=in_flight, sentiment="positive", **QUICK)
    assert [result.text for result in together] == [result.text for result in alone]
    for mine, other in zip(together, alone, strict=True):
        assert mine.value == pytest.approx(other.value, abs=1e-4)
        assert mine.exact_evaluations == other.exact_evaluations
        assert [step.best.text for step in mine.history] == [step.best.text for step in other.history]


def test_photos_share_their_passes(captioner, monkeypatch):
    met = []
    monkeypatch.setattr(
        "promptfuse.tasks.many.BatchScheduler", lambda: met.append(BatchScheduler()) or met[-1]
    )  # the meetings that are held
    caption_all(captioner, PHOTOS[:4], in_flight=4, **QUICK)
    (meeting,) = met
    assert meeting.calls > 3 * meeting.rounds


@pytest.mark.slow
def test_a_bad_photo_has_an_error_and_the_others_their_captions(captioner, alone, tmp_path):
    seen = {}
    photos = [PHOTOS[0], tmp_path / "none.jpg", PHOTOS[1]]
    outcomes = caption_all(
        captioner, photos, in_flight=3, on_outcome=seen.__setitem__, sentiment="positive", **QUICK
    )
    assert isinstance(outcomes[1], pf.ImageError)
    assert [outcomes[0].text, outcomes[2].text] == [alone[0].text, alone[1].text]
    assert seen == dict(enumerate(outcomes))
    with pytest.raises(pf.ImageError, match=r"none\.jpg"):
        caption_many(photos, **QUICK)


def test_results_come_in_order_as_soon_as_they_can(captioner, alone):
    each = caption_each(captioner, PHOTOS, in_flight=2, sentiment="positive", **QUICK)
    assert next(each).text == alone[0].text
    assert [result.text for result in each] == [result.text for result in alone[1:]]


def test_none_is_none_and_none_in_flight_is_refused(captioner):
    assert caption_all(captioner, []) == []
    assert list(caption_each(captioner, [])) == []
    with pytest.raises(pf.ConfigError, match="must be at least 1"):
        caption_all(captioner, PHOTOS, in_flight=0)


def test_a_callback_may_use_the_models(captioner, alone):
    found = {}

    def compare(number, outcome):
        found[number] = captioner.objective(PHOTOS[0]).score([outcome.text])["image"].item()

    caption_all(captioner, PHOTOS[:3], in_flight=3, on_outcome=compare, sentiment="positive", **QUICK)
    expected = captioner.objective(PHOTOS[0]).score([result.text for result in alone[:3]])["image"]
    assert [found[number] for number in range(3)] == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.slow
def test_the_models_may_be_used_while_results_come(captioner, alone):
    for mine, other in zip(
        caption_each(captioner, PHOTOS, in_flight=2, sentiment="positive", **QUICK), alone, strict=True
    ):
        again = captioner(PHOTOS[0], sentiment="positive", **QUICK)
        assert (mine.text, again.text) == (other.text, alone[0].text)


def test_the_work_ends_with_the_iterator(captioner):
    seen = []
    real = captioner.search

    class Counting:
        """A captioner that keeps what it was asked."""

        def load(self, *given):
            captioner.load(*given)

        def __call__(self, image, **settings):
            seen.append(image)
            return real(image, **settings).run()

    before = threading.active_count()
    each = caption_each(Counting(), [*PHOTOS, *PHOTOS, *PHOTOS], in_flight=2, **QUICK)
    next(each)
    each.close()
    assert threading.active_count() == before
    assert len(seen) <= 4


@pytest.mark.slow
def test_models_are_free_once_nobody_has_them():
    captioner = pf.Captioner("mini")
    captioner(PHOTOS[0], **QUICK)
    models = [weakref.ref(model) for model in captioner.loaded().values()]
    assert all(model() is not None for model in models)
    del captioner
    gc.collect()
    assert [model() for model in models] == [None] * len(models)


def test_one_photo_is_not_a_list_of_letters():
    with pytest.raises(pf.ConfigError, match="is one photo; give a list"):
        pf.caption_many("a.jpg")
