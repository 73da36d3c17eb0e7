"""Placing A's tokens in B's space, against loops and against spaces whose answer is known."""

import pytest
import torch

from promptfuse.adapters import AnchorTransport, LexicalTransport, SlotGradient
from promptfuse.adapters.anchors import (
    PLACINGS,
    landmark_pca,
    place_tokens,
    shared_tokens,
    similarities,
    sparse_sums,
)
from promptfuse.adapters.words import inner_tokens, word_starts
from promptfuse.errors import AdapterError

FAMILIES = ["byte-level", "word-piece", "metaspace"]
each_placing = pytest.mark.parametrize("placing", PLACINGS)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(d, seed=3):
    return torch.linalg.qr(random(d, d, seed=seed)).Q


@each_placing
def test_tokens_of_a_rotated_space_are_found_exactly(placing):
    """Anchors alone tell the rotation and the scale, so tokens that are no anchors land where they belong."""
    tokens, anchors, turn = random(20, 6), random(50, 6, seed=1), 2.5 * rotation(6)
    found = PLACINGS[placing](tokens, anchors, anchors @ turn)
    torch.testing.assert_close(found, tokens @ turn, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("placing", ["similarities", "landmark-pca"])
def test_a_shifted_space_is_found_too(placing):
    tokens, anchors, turn = random(20, 6), random(50, 6, seed=1), rotation(6)
    found = PLACINGS[placing](tokens, anchors, anchors @ turn + 7)
    torch.testing.assert_close(found, tokens @ turn + 7, rtol=1e-3, atol=1e-3)


def test_sparse_sums_are_those_of_a_plain_loop():
    tokens, a, b = random(7, 12), random(40, 12, seed=1), random(40, 5, seed=2)
    found = sparse_sums(tokens, a, b, atoms=4)
    for token, row in zip(tokens, found, strict=True):
        unit, chosen, left = a / a.norm(dim=1, keepdim=True), [], token
        for _ in range(4):
            chosen.append(max(set(range(40)) - set(chosen), key=lambda k: float((unit[k] @ left).abs())))
            weights = torch.linalg.lstsq(a[chosen].T.double(), token.double()[:, None]).solution[:, 0].float()
            left = token - weights @ a[chosen]
        torch.testing.assert_close(row, weights @ b[chosen], rtol=1e-4, atol=1e-4)


def test_a_sum_of_three_anchors_is_found_as_such():
    a, b = random(60, 64, seed=1), random(60, 5, seed=2)
    token = (2 * a[4] - a[17] + 0.5 * a[33])[None]
    found = sparse_sums(token, a, b, atoms=3)
    torch.testing.assert_close(found[0], 2 * b[4] - b[17] + 0.5 * b[33], rtol=1e-3, atol=1e-3)


def test_equal_anchors_do_no_harm():
    a = random(10, 6).repeat(2, 1)
    found = sparse_sums(random(5, 6, seed=1), a, a, atoms=12)
    torch.testing.assert_close(found, random(5, 6, seed=1), rtol=1e-3, atol=1e-3)


def test_similarities_are_those_of_the_definition():
    """Where B's anchors leave no choice, the cosines with them are A's."""
    tokens, a, turn = random(9, 4), random(30, 4, seed=1), rotation(4)
    b = a @ turn
    found = similarities(tokens, a, b)
    for token, place in zip(tokens, found, strict=True):
        for k in range(30):
            here = torch.cosine_similarity(token - a.mean(0), a[k] - a.mean(0), dim=0)
            there = torch.cosine_similarity(place - b.mean(0), b[k] - b.mean(0), dim=0)
            assert float(here) == pytest.approx(float(there), abs=1e-4)


def test_landmark_pca_is_least_squares_if_no_component_is_left_out():
    tokens, a, b = random(9, 4), random(30, 4, seed=1), random(30, 6, seed=2)
    design = torch.cat([a, torch.ones(30, 1)], 1)
    slopes = torch.linalg.lstsq(design, b).solution
    expected = torch.cat([tokens, torch.ones(9, 1)], 1) @ slopes
    torch.testing.assert_close(landmark_pca(tokens, a, b), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@each_placing
def test_between_a_model_and_its_rotation_estimates_are_its_own_products(make_model, family, placing):
    """For every token that begins or continues a word, the lexical transport's sub-words included."""
    a, other = make_model(family, 8), make_model(family, 8)
    turn = rotation(8)
    b = type(a)("turned", other.tokenizer, a.embedding_table @ turn)
    transport = AnchorTransport(place_tokens(placing, a, b, LexicalTransport(a, b, 1)), a, b)
    slot = SlotGradient(random(2, 1), random(2, 1, 1, 8, seed=1), random(2, 8, seed=2))
    found = transport.estimate(slot)
    gradient = slot.gradient[:, 0, 0] @ turn.T  # In A's space.
    expected = (
        slot.loss + gradient @ a.embedding_table.T - (slot.gradient[:, 0, 0] * slot.probe).sum(1)[:, None]
    )
    assert found.shape == (2, len(a.embedding_table))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)
    known = set(word_starts(a.tokenizer)) | set(inner_tokens(a.tokenizer))
    ids_a, ids_b = shared_tokens(a, b, transport)
    assert torch.equal(ids_a, ids_b)
    assert set(ids_a.tolist()) <= known
    assert len(ids_a) > 0.8 * len(known)


def test_longer_slots_are_not_looked_at(make_model):
    a, b = make_model("byte-level", 8), make_model("word-piece", 8, seed=1)
    transport = AnchorTransport(random(len(a.embedding_table), 8), a, b)
    slot = SlotGradient(random(2, 3), random(2, 3, 3, 8, seed=1), random(2, 8, seed=2))
    short = SlotGradient(slot.loss[:, :1], slot.gradient[:, :1, :1], slot.probe)
    assert torch.equal(transport.estimate(slot), transport.estimate(short))


@pytest.mark.parametrize("pair", [("byte-level", "word-piece"), ("metaspace", "byte-level")], ids="-".join)
def test_shared_tokens_are_those_of_equal_spelling(make_model, pair):
    a, b = make_model(pair[0], 8), make_model(pair[1], 8, seed=1)
    ids_a, ids_b = shared_tokens(a, b, LexicalTransport(a, b, 1))
    spelled = {
        name: (word_starts(model.tokenizer), inner_tokens(model.tokenizer))
        for name, model in (("a", a), ("b", b))
    }
    inner = 0
    for one, other in zip(ids_a.tolist(), ids_b.tolist(), strict=True):
        if one in spelled["a"][0]:  # WordPiece lowers the case.
            assert spelled["a"][0][one].lower() == spelled["b"][0][other].lower()
        else:
            assert spelled["a"][1][one] == spelled["b"][1][other]
            inner += 1
    assert inner > 5


def test_a_shared_token_keeps_its_own_embedding_and_others_that_are_not_asked_for_none(make_model):
    a, b = make_model("byte-level", 8), make_model("word-piece", 6, seed=1)
    words = LexicalTransport(a, b, 1)
    ids_a, ids_b = shared_tokens(a, b, words)
    strange = next(k for k in range(len(a.embedding_table)) if k not in set(ids_a.tolist()))
    found = place_tokens("landmark-pca", a, b, words, torch.tensor([strange]))
    assert torch.equal(found[ids_a], b.embedding_table[ids_b])
    missing = found.isnan().any(1)
    assert not missing[strange]
    assert int(missing.sum()) == len(found) - len(ids_a) - 1


def test_inner_tokens_are_those_that_continue_words(make_model):
    for family in FAMILIES:
        tokenizer = make_model(family, 8).tokenizer
        starts, inner = word_starts(tokenizer), inner_tokens(tokenizer)
        assert inner
        assert not set(starts) & set(inner)
        for index, letters in inner.items():
            if letters.isalpha() and letters.isascii():
                assert tokenizer.decode([index]).removeprefix("##") == letters
    assert inner_tokens(make_model("clip", 8).tokenizer) == {}  # It marks the ends of words.


def test_models_without_a_common_token_are_refused(make_model):
    a, b = make_model("byte-level", 8), make_model("byte-level", 8, rows=1)
    with pytest.raises(AdapterError, match="share no token"):
        place_tokens("similarities", a, b, LexicalTransport(a, b, 1))


def test_what_a_surrogate_asks_of_the_words_is_asked_of_the_table(make_model):
    a, b = make_model("byte-level", 8), make_model("word-piece", 8, seed=1)
    table, direction = random(len(a.embedding_table), 8), random(8, seed=1)
    transport = AnchorTransport(table, a, b)
    tokens = transport.tokens.tolist()
    assert len(tokens) == len(table)
    torch.testing.assert_close(transport.embeddings_of(tokens), transport.word_embeddings())
    torch.testing.assert_close(transport.along(direction), table @ direction)
