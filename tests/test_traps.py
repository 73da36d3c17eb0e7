"""The mistakes that earlier code for this method made, each with a test that fails if it is made again.

Numbered as they are known here; where a test of a module says it already, that test is run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional

import promptfuse as pf
from promptfuse.adapters import Adapter
from promptfuse.adapters.words import common_words, word_starts
from promptfuse.text.segments import encode_words, segment_text
from tests import test_tproduct
from tests.adapters import test_maps
from tests.models import test_image_text

TEXTS = ("A brown dog", "Two children are playing", "dog")
Models = Callable[..., Any]


@pytest.fixture(scope="module")
def adapter(model: Models) -> Adapter:
    return Adapter.fit(model("gpt2"), model("bert"))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def probe_of(model: Any, beams: int) -> Tensor:
    return model.embedding_table.mean(0) + 0.3 * random(beams, model.embedding_table.shape[1])


def counts(text: str, *models: Any) -> list[list[int]]:
    cut = segment_text(text, [model.tokenizer for model in models])
    return [[stop - start for start, stop in spans] for spans in cut.token_spans]


def test_trap_01_each_word_gets_the_gradient_of_its_own_tokens(model: Models, adapter: Adapter) -> None:
    """And not the first k of B's sequence."""
    n_a, n_b = counts("A wonderful film in the snow, delicious", model("gpt2"), model("bert"))
    assert n_a != n_b
    for word in range(len(n_a)):
        gradient = torch.zeros(1, sum(n_b), 16)
        gradient[:, sum(n_b[:word]) : sum(n_b[: word + 1])] = 1.0
        pulled = adapter.pull(gradient, n_a, n_b)[0].abs().sum(1) > 0
        start = sum(n_a[:word])
        assert pulled.tolist() == [start <= index < start + n_a[word] for index in range(sum(n_a))]


def test_trap_02_the_transpose_reverses_the_tubes(model: Models, adapter: Adapter) -> None:
    """Transposed slices alone are right up to two sub-tokens and wrong from three on."""
    n_a, n_b = counts("wonderful strawberries are delicious", model("gpt2"), model("bert"))
    assert max(*n_a, *n_b) > 2
    x, gradient = random(2, sum(n_a), 16).requires_grad_(), random(2, sum(n_b), 16, seed=1)
    (expected,) = torch.autograd.grad(adapter.push(x, n_a, n_b), x, gradient)
    torch.testing.assert_close(adapter.pull(gradient, n_a, n_b), expected, rtol=1e-5, atol=1e-5)
    for n in range(1, 9):
        test_tproduct.test_trap_2_the_transpose_reverses_the_tubes(n)


def test_trap_03_the_map_is_chosen_as_it_was_fitted(model: Models, adapter: Adapter) -> None:
    """By the longer of both spellings, not by A's: a single A-token may be several tokens in B."""
    a, b = model("gpt2"), model("bert")
    transport = pf.TProductTransport(adapter, a, b, 3)
    probe, gradient = random(1, 16), random(1, 3, 3, 16, seed=1) * torch.ones(3, 3).tril()[..., None]
    slot = pf.adapters.SlotGradient(torch.zeros(1, 3), gradient, probe)
    estimates = transport.estimate(slot)[0]
    lengths = {token: len(spelling(b, a, token)) for token in transport.tokens.tolist()}
    assert max(lengths.values()) > 1
    for token, n in lengths.items():
        mapped = torch.einsum("d,dkn->nk", a.embedding_table[token], adapter.maps.of_length(n))
        expected = (gradient[0, n - 1, :n] * (mapped - probe)).sum()
        torch.testing.assert_close(estimates[token], expected, rtol=1e-4, atol=1e-4)


def spelling(model_b: Any, model_a: Any, token: int) -> tuple[int, ...]:
    (ids,) = encode_words(model_b.tokenizer, [word_starts(model_a.tokenizer)[token]])
    return ids or ()


@pytest.mark.parametrize("n", [2, 3, 5])
def test_trap_04_padding_is_always_on_the_right(n: int) -> None:
    test_maps.test_trap_4_padding_is_on_the_right_in_fitting_and_in_use(n)


def test_trap_05_no_map_is_random(model: Models, adapter: Adapter) -> None:
    """Words longer than the largest map share one that is fitted, and fitting draws nothing."""
    torch.manual_seed(1)
    again = Adapter.fit(model("gpt2"), model("bert"))
    for n in range(1, 30):
        assert torch.equal(adapter.maps.of_length(n), again.maps.of_length(n))
    x, long = random(1, 20, 16), max(adapter.maps.by_length) + 1
    assert long <= 20
    mapped = adapter.push(x[:, :long], [long], [long])
    torch.testing.assert_close(mapped, x[:, :long] @ adapter.maps.positional)
    assert adapter.maps.positional.abs().max() > 0


def test_trap_06_a_beam_has_its_own_probe_gradient(model: Models) -> None:
    """And not the sum over all beams."""
    term = pf.ClassProbability(model("bert"), "Positive")
    probe = probe_of(model("bert"), len(TEXTS))
    together = term.slot_gradient(TEXTS, probe, 2)
    for beam, text in enumerate(TEXTS):
        alone = term.slot_gradient([text], probe[beam : beam + 1], 2)
        torch.testing.assert_close(together.gradient[beam], alone.gradient[0], rtol=1e-4, atol=1e-6)


def test_trap_07_the_probe_starts_a_word_of_its_own(model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text before it keeps its tokens, and what glues to a word has no share in the probe."""
    a, b = model("gpt2"), model("clip")
    term = pf.ImageSimilarity(b, test_image_text.photos()[0])
    seen, outputs = [], term.outputs
    monkeypatch.setattr(term, "outputs", lambda batch: seen.append(batch) or outputs(batch))
    term.slot_gradient(TEXTS, probe_of(b, len(TEXTS)), 1)
    for row, text in zip(seen[0].ids.tolist(), TEXTS, strict=True):
        (own,), ((_, stop),) = b.token_rows([text])
        assert row[:stop] == own[:stop]
        assert row[stop + 1 : len(own) + 1] == own[stop:]
    transport = pf.LexicalTransport(a, b)
    (mark,) = a.plain_ids(["!"])[0]
    assert mark not in transport.tokens
    chances = torch.full((1, len(a.embedding_table)), 1e-3)
    glued = chances.clone()
    glued[:, mark] = 0.9
    torch.testing.assert_close(transport.expected_embedding(glued), transport.expected_embedding(chances))


def test_trap_08_fluency_is_a_probability_with_a_gradient(model: Models) -> None:
    """Log-probabilities in nats rank tokens, not raw logits; what follows the slot is predicted from it."""
    lm = model("gpt2")
    term = pf.Fluency(lm)
    (ids,) = lm.plain_ids(["A brown dog"])
    log_probabilities = lm.next_log_probabilities([ids])[0]
    before = term.exact("A brown dog") * len(ids)
    for word in (" runs", " is", "."):
        text = f"A brown dog{word}"
        (longer,) = lm.plain_ids([text])
        if longer[:-1] == ids:
            gained = term.exact(text) * len(longer) - before
            assert gained == pytest.approx(-float(log_probabilities[longer[-1]]), abs=1e-4)
    framed, probe = pf.Fluency(lm, suffix="."), probe_of(lm, 1)
    step = 1e-2 * random(1, 16, seed=2)
    found = framed.slot_gradient(["A brown dog"], probe, 1)
    ahead, behind = (framed.slot_gradient(["A brown dog"], at, 1).loss for at in (probe + step, probe - step))
    slope = float(ahead - behind) / 2
    assert abs(slope) > 1e-4
    assert float((found.gradient[:, 0, 0] * step).sum()) == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("name", ["clip", "old-clip"])
def test_trap_09_a_short_row_of_clip_pools_at_its_own_end(name: str, model: Models) -> None:
    """Padded on the left with the end mark it would pool at position 1, as an empty text."""
    test_image_text.test_a_short_text_pools_at_its_own_end(name, model)


@pytest.mark.parametrize(("name", "label"), [("bert", "Positive"), ("roberta", "positive")])
def test_trap_10_a_class_has_a_loss_for_each_text(
    name: str, label: str, model: Models, checkpoint: Callable[[str], Path]
) -> None:
    """Not the batch's mean; of a row with its special tokens and, where it is padded, its mask."""
    transformers.logging.disable_progress_bar()
    module = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint(name)).eval()
    transformers.logging.enable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint(name))
    term = pf.ClassProbability(model(name), label)
    found = term.score(TEXTS)
    for text, loss in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            logits = module(**tokenizer(text, return_tensors="pt")).logits
        expected = functional.cross_entropy(logits, torch.tensor([module.config.label2id[label]]))
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert len({round(value, 3) for value in found.tolist()}) == len(TEXTS)


def test_trap_11_ids_are_known_and_never_searched_for(
    checkpoint: Callable[[str], Path], model: Models
) -> None:
    """Two tokens of one embedding: whoever looks ids up by their embeddings finds only one of them."""
    lm = pf.load_model(checkpoint("gpt2"))
    first, second = (lm.plain_ids([word])[0][0] for word in (" is", " in"))
    with torch.no_grad():
        lm.embedding_table[second] = lm.embedding_table[first]
    tone = pf.ClassProbability(model("bert"), "Positive")
    everything = len(lm.embedding_table)
    search = pf.Search(
        pf.Objective(pf.Fluency(lm), tone),
        pf.AutoDAN(candidates=everything),
        pf.BeamSearch(everything),
        prefix="A dog",
        steps=1,
    )
    next(iter(search))
    (prefix,) = lm.plain_ids(["A dog"])
    texts = {beam.ids: beam.text for beam in search.beams}
    assert texts[*prefix, first] == "A dog is"
    assert texts[*prefix, second] == "A dog in"


@pytest.mark.parametrize("n", [3, 4, 5])
def test_trap_12_a_zero_slice_keeps_its_place(n: int) -> None:
    """In the pseudo-inverse, and in the solution that a fit takes."""
    for dtype in (torch.float64, torch.complex128):
        test_tproduct.test_trap_12_the_pinv_leaves_zero_slices_in_their_place(dtype, n)


def test_trap_13_words_are_fitted_with_their_blank_and_weight(model: Models) -> None:
    a, b = model("gpt2"), model("bert")
    words = common_words(a.tokenizer, b.tokenizer)
    assert all(word[0] == " " and word[1:].strip() == word[1:] for word in words)
    assert len(set(words.values())) > 10
    bare, used = (a.plain_ids([word])[0] for word in ("dog", " dog"))
    assert bare != used
    # One word alone: the map takes its embeddings to B's, those with the blank and no others.
    adapter = Adapter.fit(a, b, "paper", words={"dog": 1.0})
    (ids_b,) = encode_words(b.tokenizer, [" dog"])
    mapped = adapter.push(a.embedding_table[used][None], [len(used)], [len(ids_b)])
    torch.testing.assert_close(mapped[0], b.embedding_table[list(ids_b)], rtol=1e-3, atol=1e-3)
    # The frequent word is fitted better than the rare one; unweighted they would change places for nothing.
    rare = dict.fromkeys(words, 1.0)
    loud = rare | {" dog": 1e12}
    errors = []
    for weights in (rare, loud):
        adapter = Adapter.fit(a, b, words=weights)
        mapped = adapter.push(a.embedding_table[used][None], [len(used)], [len(ids_b)])
        errors.append(float((mapped[0] - b.embedding_table[list(ids_b)]).norm()))
    assert errors[1] < 0.5 * errors[0]
