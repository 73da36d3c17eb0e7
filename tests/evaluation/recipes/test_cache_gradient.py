"""Gradient steps on the cache: they are autograd's, they lower the loss, and the next token follows."""

import pytest
import torch

from promptfuse.evaluation.recipes.cache_gradient import (
    CacheGradientDecoder,
    Pace,
    _Beam,
    cache_losses,
    shift,
)
from promptfuse.evaluation.recipes.decoding import read
from promptfuse.search.scheduler import BatchScheduler
from tests.evaluation.recipes.conftest import quick

FEW = {"top_k": 8, "iterations": 2, "steps": 5, "beams": 1}


def begin(describer, photo, text):
    """A decoder, its reading of a text, the last token and the beam."""
    decoder = CacheGradientDecoder(describer.objective(photo), "", describer.recipe)
    lm = decoder.language.lm
    (ids,) = lm.plain_ids([text])
    reading = read(lm, torch.tensor([[*lm.start_ids, *ids]]))
    return decoder, reading, torch.tensor([[ids[-1]]]), _Beam(tuple(ids), text)


def test_the_losses_are_the_definition():
    now, before = (torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    now, before = now.log_softmax(-1), before.log_softmax(-1)
    target = torch.tensor([[0.7, 0.3, 0, 0], [0, 0, 1.0, 0]])
    found = cache_losses(now, target, before, 0.2)
    kl = torch.nn.functional.kl_div(before, now, log_target=True, reduction="none").sum(-1)
    cross = torch.stack([torch.nn.functional.cross_entropy(now[i], target[i]) for i in range(2)])
    assert torch.allclose(found, cross + 0.2 * kl, atol=1e-6)


def test_an_unchanged_cache_gives_the_models_own_distribution(photos):
    _, reading, last, beam = begin(quick("cache-gradient"), photos[0], "A dog runs through")
    lm = quick("cache-gradient").captioner.model("lm")
    layers = tuple((keys[:, :, :-1], values[:, :, :-1]) for keys, values in reading.layers)
    again = read(lm, last, layers).log_probabilities
    whole = lm.next_log_probabilities([list(beam.row)], reuse=False)
    assert torch.allclose(again, whole, atol=1e-4)
    assert torch.allclose(reading.log_probabilities, whole, atol=1e-4)


@pytest.mark.parametrize("norm_power", [0.0, 0.9])
def test_a_step_lowers_its_loss(photos, norm_power):
    describer = quick("cache-gradient", top_k=16)
    decoder, reading, last, beam = begin(describer, photos[0], "A small animal with")
    lm, before = decoder.language.lm, reading.log_probabilities
    layers = tuple((keys[:, :, :-1], values[:, :, :-1]) for keys, values in reading.layers)
    target = decoder.target(before, [beam])
    assert float(target.sum()) == pytest.approx(1, abs=1e-5)
    assert int((target > 0).sum()) <= 16
    losses = [float(cache_losses(before, target, before, 0.2))]
    for _ in range(3):
        layers = shift(lm, last, layers, target, before, Pace(0.2, 0.02, norm_power))
        losses.append(float(cache_losses(read(lm, last, layers).log_probabilities, target, before, 0.2)))
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[-1] > 3e-4


def test_the_gradient_is_that_of_finite_differences(photos):
    decoder, reading, last, beam = begin(quick("cache-gradient", top_k=8), photos[1], "A man on")
    lm, before = decoder.language.lm, reading.log_probabilities
    layers = tuple((keys[:, :, :-1], values[:, :, :-1]) for keys, values in reading.layers)
    target = decoder.target(before, [beam])
    moved = shift(lm, last, layers, target, before, Pace(0.2, 1.0, 0.0))
    gradients = [
        old - new
        for pair, other in zip(layers, moved, strict=True)
        for old, new in zip(pair, other, strict=True)
    ]
    direction = [
        torch.randn(part.shape, generator=torch.Generator().manual_seed(index))
        for index, part in enumerate(gradients)
    ]  # fmt: skip
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))

    def loss(size):
        flat = [part for pair in layers for part in pair]
        changed = [part + size * d for part, d in zip(flat, direction, strict=True)]
        pairs = tuple(zip(changed[::2], changed[1::2], strict=True))
        return float(cache_losses(read(lm, last, pairs).log_probabilities, target, before, 0.2))

    assert (loss(1e-2) - loss(-1e-2)) / 2e-2 == pytest.approx(expected, rel=0.02, abs=1e-3)


def test_rows_do_not_share_their_steps(photos):
    describer = quick("cache-gradient", top_k=8)
    decoder, reading, last, beam = begin(describer, photos[0], "A young girl in")
    _, other, behind, second = begin(describer, photos[0], "Two dogs run to")
    lm = decoder.language.lm
    both = read(lm, torch.tensor([[*lm.start_ids, *beam.row], [*lm.start_ids, *second.row]]))
    one = decoder.shifted(reading, last, [beam])
    two = decoder.shifted(other, behind, [second])
    together = decoder.shifted(both, torch.cat([last, behind]), [beam, second])
    assert torch.allclose(together, torch.cat([one, two]), atol=1e-3)


def test_the_shift_moves_the_distribution_to_what_matches(photos):
    decoder, reading, last, beam = begin(quick("cache-gradient", step_size=1), photos[0], "A picture of a")
    before = reading.log_probabilities
    target = decoder.target(before, [beam])
    after = decoder.shifted(reading, last, [beam])
    best = int(target.argmax())
    assert after[0, best] > before[0, best]
    assert float(after.exp().sum()) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_without_steps_it_is_the_models_own_search(photos):
    describer = quick("cache-gradient", fusion=0, top_k=4, iterations=1, beams=1)
    assert describer(photos[0]).text == describer(photos[1]).text


def test_beams_and_ends(photos):
    found = quick("cache-gradient", beams=2, top_k=8, iterations=1)(photos[1])
    assert found.complete
    assert found.text.endswith((".", "!", "?"))
    cut = quick("cache-gradient", **{**FEW, "steps": 2})(photos[1])
    assert cut.text.strip()
    assert not cut.complete


@pytest.mark.slow
def test_the_same_in_any_company(photos):
    describer = quick("cache-gradient", **FEW)
    alone = [describer(photo) for photo in photos[:3]]
    found = {}

    def worker(number):
        found[number] = describer(photos[number], seed=number)

    BatchScheduler().run([lambda number=number: worker(number) for number in range(3)])
    assert [found[number].text for number in range(3)] == [caption.text for caption in alone]


def test_a_sentiment_is_part_of_the_target(photos):
    decoder, reading, _, beam = begin(
        quick("cache-gradient", sentiment="positive", gamma=3), photos[0], "A dog is"
    )
    target = decoder.target(reading.log_probabilities, [beam])
    assert float(target.sum()) == pytest.approx(4, abs=1e-4)


def test_a_prefix_is_moved_from_the_first_token_on(photos):
    describer = quick("cache-gradient", prefix="A small", step_size=1, **{**FEW, "steps": 1})
    found = {describer(photo).text for photo in photos}
    assert len(found) > 1
    assert all(text.startswith("A small ") for text in found)
