"""Transports against plain loops over the vocabulary, and against losses whose answer is known."""

import pytest
import torch

from promptfuse.adapters import Adapter, LexicalTransport, SlotGradient, TProductTransport, word_starts
from promptfuse.errors import AdapterError
from promptfuse.text.segments import segment_text, special_ids
from promptfuse.tproduct import t_product

BEAMS, M = 3, 3
PAIRS = [
    ("byte-level", "clip"),
    ("byte-level", "word-piece"),
    ("byte-level", "metaspace"),
    ("clip", "byte-level"),
    ("word-piece", "metaspace"),
    ("metaspace", "word-piece"),
]
every_pair = pytest.mark.parametrize("families", PAIRS, ids="-".join)


@pytest.fixture(scope="module")
def models(make_model):
    def make(families):
        return make_model(families[0], 6), make_model(families[1], 8, seed=1)

    return make


def random_slot(d, seed=0, lengths=M):
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(BEAMS, lengths, lengths, d, generator=generator)
    gradient *= torch.ones(lengths, lengths).tril()[..., None]
    loss, probe = torch.randn(BEAMS, lengths, generator=generator), torch.randn(BEAMS, d, generator=generator)
    return SlotGradient(loss, gradient, probe)


def spelling(model, word):
    """Ids of a word as it stands in a text, encoded here and now."""
    text = segment_text("the" + word, [model.tokenizer])
    start, stop = text.token_spans[0][-1]
    return text.ids[0][start:stop]


def estimate_naive(slot, model_a, model_b, embed):
    """One candidate at a time; ``embed`` gives B's embeddings of it, (n_B, d_B), true or mapped."""
    lengths = slot.loss.shape[1]
    estimates = torch.full((len(slot.loss), len(model_a.embedding_table)), float("nan"))
    for token, word in word_starts(model_a.tokenizer).items():
        ids = spelling(model_b, word)
        if token >= len(model_a.embedding_table) or not ids or max(ids) >= len(model_b.embedding_table):
            continue
        if not special_ids(model_b.tokenizer).isdisjoint(ids):
            continue
        rows = list(embed(token, ids))
        m = min(len(ids), lengths)
        rows = [*rows[: m - 1], torch.stack(rows[m - 1 :]).mean(0)]
        for beam in range(len(slot.loss)):
            change = sum(
                slot.gradient[beam, m - 1, j] @ (row - slot.probe[beam]) for j, row in enumerate(rows)
            )
            estimates[beam, token] = slot.loss[beam, m - 1] + change
    return estimates


@every_pair
def test_lexical_estimates_are_those_of_a_plain_loop(models, families):
    model_a, model_b = models(families)
    slot = random_slot(8)
    naive = estimate_naive(slot, model_a, model_b, lambda token, ids: model_b.embedding_table[list(ids)])
    estimates = LexicalTransport(model_a, model_b, M).estimate(slot)
    assert torch.isfinite(naive).sum() > 30
    torch.testing.assert_close(estimates, naive, rtol=1e-4, atol=1e-4, equal_nan=True)


@every_pair
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_t_product_estimates_are_those_of_a_plain_loop(models, families, preset, text_words):
    model_a, model_b = models(families)
    adapter = Adapter.fit(model_a, model_b, preset=preset, words=text_words)
    slot = random_slot(8)

    def embed(token, ids):
        x = torch.zeros(1, 6, len(ids))
        x[0, :, 0] = model_a.embedding_table[token]
        return t_product(x, adapter.maps.of_length(len(ids)))[0].T

    naive = estimate_naive(slot, model_a, model_b, embed)
    estimates = TProductTransport(adapter, model_a, model_b, M).estimate(slot)
    torch.testing.assert_close(estimates, naive, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_words_of_every_length_are_among_the_candidates(models):
    """Else the tests above would not reach the words that do not fit into the slot."""
    model_a, model_b = models(("byte-level", "word-piece"))
    lengths = {len(spelling(model_b, word)) for word in word_starts(model_a.tokenizer).values()}
    assert {1, 2, 3, 4, 5} <= lengths
    assert max(lengths) > 8


@pytest.mark.parametrize("lengths", [1, 2, 12])
def test_slots_of_other_lengths(models, lengths):
    model_a, model_b = models(("byte-level", "word-piece"))
    slot = random_slot(8, lengths=lengths)
    naive = estimate_naive(slot, model_a, model_b, lambda token, ids: model_b.embedding_table[list(ids)])
    estimates = LexicalTransport(model_a, model_b, lengths).estimate(slot)
    torch.testing.assert_close(estimates, naive, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_the_lexical_estimate_of_a_linear_loss_is_exact(models):
    """Taken by autograd at the probe, the gradient of a linear loss gives the loss itself."""
    model_a, model_b = models(("byte-level", "clip"))
    lengths = 12
    weights = torch.randn(BEAMS, lengths, lengths, 8, generator=torch.Generator().manual_seed(5))
    probe = torch.randn(BEAMS, 8, generator=torch.Generator().manual_seed(6))
    losses, gradients = [], torch.zeros(BEAMS, lengths, lengths, 8)
    for m in range(1, lengths + 1):
        at = probe[:, None].repeat(1, m, 1).requires_grad_()
        loss = m + (weights[:, m - 1, :m] * at).sum((1, 2))
        losses.append(loss.detach())
        (gradients[:, m - 1, :m],) = torch.autograd.grad(loss.sum(), at)
    slot = SlotGradient(torch.stack(losses, 1), gradients, probe)
    estimates = LexicalTransport(model_a, model_b, lengths).estimate(slot)
    for token, word in word_starts(model_a.tokenizer).items():
        ids = spelling(model_b, word)
        if not special_ids(model_b.tokenizer).isdisjoint(ids):
            assert torch.isnan(estimates[:, token]).all()  # An unknown token stands for another text.
            continue
        true = len(ids) + (weights[:, len(ids) - 1, : len(ids)] * model_b.embedding_table[list(ids)]).sum(
            (1, 2)
        )
        torch.testing.assert_close(estimates[:, token], true, rtol=1e-4, atol=1e-4)


def test_trap_6_beams_do_not_mix(models, text_words):
    """Each beam has its own gradient: another beam's changes nothing."""
    model_a, model_b = models(("byte-level", "clip"))
    adapter = Adapter.fit(model_a, model_b, words=text_words)
    slot = random_slot(8)
    gradient = slot.gradient.clone()
    gradient[1] += 1.0
    for transport in (LexicalTransport(model_a, model_b), TProductTransport(adapter, model_a, model_b)):
        before = transport.estimate(slot)
        after = transport.estimate(SlotGradient(slot.loss, gradient, slot.probe))
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]], equal_nan=True)
        assert not torch.allclose(after[1], before[1], equal_nan=True)


def test_tokens_that_begin_no_word_and_special_ones_have_no_estimate(models):
    model_a, model_b = models(("byte-level", "clip"))
    estimates = LexicalTransport(model_a, model_b).estimate(random_slot(8))
    vocab = model_a.tokenizer.get_vocab()
    for token in ("<|endoftext|>", "Ġ", "the", "ing"):
        assert token not in vocab or estimates[:, vocab[token]].isnan().all()
    assert estimates[:, vocab["Ġthe"]].isfinite().all()


def test_padded_tables_and_ids_beyond_the_tables(make_model, models, text_words):
    model_a, model_b = models(("byte-level", "clip"))
    tokens = len(model_a.tokenizer)
    padded, cut = make_model("byte-level", 6, rows=tokens + 40), make_model("byte-level", 6, rows=tokens - 40)
    slot = random_slot(8)
    for model in (padded, cut):
        adapter = Adapter.fit(model, model_b, words=text_words)
        for transport in (LexicalTransport(model, model_b), TProductTransport(adapter, model, model_b)):
            estimates = transport.estimate(slot)
            assert estimates.shape == (BEAMS, len(model.embedding_table))
            assert estimates.isfinite().any()
            assert estimates[:, tokens:].isnan().all()
    few = make_model("clip", 8, rows=400)
    known = LexicalTransport(model_a, few).estimate(slot).isfinite().sum()
    assert 0 < known < LexicalTransport(model_a, model_b).estimate(slot).isfinite().sum()


def test_no_common_word_is_no_estimate(models, make_model):
    model_a, _ = models(("clip", "byte-level"))
    transport = LexicalTransport(model_a, make_model("byte-level", 8, rows=1))
    assert transport.estimate(random_slot(8)).isnan().all()


def test_the_expected_embedding_is_the_mean_over_words(models):
    model_a, model_b = models(("byte-level", "word-piece"))
    transport = LexicalTransport(model_a, model_b)
    rows = len(model_a.embedding_table)
    chance = torch.rand(2, rows, generator=torch.Generator().manual_seed(0)).softmax(1)
    starts = word_starts(model_a.tokenizer)
    means = {v: model_b.embedding_table[list(spelling(model_b, word))].mean(0) for v, word in starts.items()}
    total = chance[:, list(starts)].sum(1, keepdim=True)
    expected = sum(chance[:, v, None] * mean for v, mean in means.items()) / total
    torch.testing.assert_close(transport.expected_embedding(chance), expected, rtol=1e-4, atol=1e-5)
    certain = torch.zeros(1, rows)
    token = model_a.tokenizer.get_vocab()["Ġthe"]
    certain[0, token] = 1.0
    torch.testing.assert_close(transport.expected_embedding(certain)[0], means[token])


def test_a_beam_at_which_no_word_has_a_chance_still_has_a_probe(models):
    model_a, model_b = models(("byte-level", "clip"))
    probe = LexicalTransport(model_a, model_b).expected_embedding(
        torch.zeros(1, len(model_a.embedding_table))
    )
    assert probe.isfinite().all()


def test_coupling_is_exact_forward_and_the_adjoint_backward(models, text_words):
    """B's embeddings stay what they are, and the gradient at them arrives at A's."""
    model_a, model_b = models(("byte-level", "word-piece"))
    transport = TProductTransport(Adapter.fit(model_a, model_b, words=text_words), model_a, model_b)
    text = segment_text("the Museum of cats", [model_a.tokenizer, model_b.tokenizer])
    n_a, n_b = ([stop - start for start, stop in spans] for spans in text.token_spans)
    assert n_a != n_b
    x_a = model_a.embedding_table[list(text.ids[0])][None].requires_grad_()
    inside = slice(text.token_spans[1][0][0], text.token_spans[1][-1][1])
    y_b = model_b.embedding_table[list(text.ids[1])[inside]][None].requires_grad_()
    coupled = transport.couple(x_a, y_b, n_a, n_b)
    assert torch.equal(coupled, y_b)
    coupled.square().sum().backward()
    assert torch.equal(y_b.grad, 2 * y_b)
    torch.testing.assert_close(x_a.grad, transport.transport_gradient(2 * y_b.detach(), n_a, n_b))
    mapped = transport.adapter.push(x_a, n_a, n_b)
    (explicit,) = torch.autograd.grad(mapped, x_a, 2 * y_b.detach())
    torch.testing.assert_close(x_a.grad, explicit, rtol=1e-5, atol=1e-5)


def test_wrong_slots_and_stale_adapters_are_refused(models, text_words):
    model_a, model_b = models(("byte-level", "clip"))
    slot = random_slot(8)
    with pytest.raises(ValueError, match="up to 3 sub-tokens"):
        LexicalTransport(model_a, model_b, max_subtokens=2).estimate(slot)
    with pytest.raises(ValueError, match="at least 1"):
        LexicalTransport(model_a, model_b, max_subtokens=0)
    with pytest.raises(ValueError, match="one slot"):
        SlotGradient(slot.loss, slot.gradient[:, :2], slot.probe)
    with pytest.raises(AdapterError, match="fit it again"):
        TProductTransport(Adapter.fit(model_b, model_a, words=text_words), model_a, model_b)


@every_pair
def test_directions_and_embeddings_of_words_are_those_of_all_words(models, families):
    model_a, model_b = models(families)
    carrier = LexicalTransport(model_a, model_b, M)
    words, tokens = carrier.word_embeddings(), carrier.tokens
    some = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:7]].tolist()
    place = {token: index for index, token in enumerate(tokens.tolist())}
    assert torch.allclose(carrier.embeddings_of(some), words[[place[token] for token in some]], atol=1e-6)
    direction = torch.randn(words.shape[1], generator=torch.Generator().manual_seed(1))
    along = carrier.along(direction)
    assert along.shape == (len(model_a.embedding_table),)
    assert torch.allclose(along[tokens], words @ direction, atol=1e-5)
    others = torch.ones_like(along, dtype=torch.bool).index_fill(0, tokens, False)
    assert along[others].isnan().all()
