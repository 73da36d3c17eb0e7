"""Measured effects of words on a model's outputs, and the transport that is made of them."""

import pytest
import torch

import promptfuse as pf
from promptfuse.adapters import EffectTransport, LexicalTransport
from promptfuse.adapters.effects import moved, shape_of
from promptfuse.adapters.words import word_starts
from promptfuse.errors import ModelError
from promptfuse.models import Model
from promptfuse.objectives import transports
from promptfuse.objectives.effects import measure_effects

TEXT = "A brown dog"
JUDGES = ["bert", "clip", "sentence"]


@pytest.fixture
def judge(model, encoder, photos):
    def make(name):
        if name == "sentence":
            return pf.TextSimilarity(encoder(), "Two children are playing", prefix="I see ")
        if name == "clip":
            return pf.ImageSimilarity(model("clip"), photos[0])
        return pf.ClassProbability(model(name), "positive")

    return make


def words_of(lm, transport):
    starts = word_starts(lm.tokenizer)
    return [starts[token] for token in transport.tokens.tolist()]


def alone(judge: Model, text: str) -> torch.Tensor:
    (row,), (span,) = judge.token_rows([text])
    with torch.no_grad():
        return judge.outputs(judge.collate([row], [span]))[0]


@pytest.mark.parametrize("name", JUDGES)
def test_effects_are_those_of_a_plain_loop(judge, name):
    model, words, contexts = judge(name).model, [" dog", " grass", " strawberry"], ["A man", "Two girls are"]
    found, texts = measure_effects(model, words, contexts)
    for word, row in zip(words, found, strict=True):
        changes = [alone(model, text + word) - alone(model, text) for text in contexts]
        torch.testing.assert_close(row, sum(changes) / 2, atol=1e-5, rtol=1e-4)
    for text, row in zip(contexts, texts, strict=True):
        torch.testing.assert_close(row, alone(model, text), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", JUDGES)
def test_effects_that_were_measured_in_the_very_text_give_the_exact_losses(model, judge, name):
    lm, term = model("gpt2"), judge(name)
    words = words_of(lm, LexicalTransport(lm, term.model, 2))
    effects, texts = measure_effects(term.model, words, [term.unfinished_input(TEXT)])
    transport = EffectTransport(effects, shape_of(texts), lm, term.model, 2)
    probabilities = torch.full((1, len(lm.embedding_table)), 1 / len(lm.embedding_table))
    found = transport.losses(term, [TEXT], probabilities)[0]
    exact = torch.tensor([term.exact(TEXT + word) for word in words])
    torch.testing.assert_close(found[transport.tokens].double(), exact.double(), atol=1e-5, rtol=1e-4)
    assert int(found.isfinite().sum()) == len(words)
    assert float(exact.std()) > 1e-4


def test_each_text_has_estimates_of_its_own(model, judge):
    lm, term = model("gpt2"), judge("clip")
    transport = transports.transport(lm, term.model, "effects", 2)
    probabilities = torch.full((2, len(lm.embedding_table)), 1 / len(lm.embedding_table))
    both = transport.losses(term, [TEXT, "Two children are"], probabilities)
    single = transport.losses(term, ["Two children are"], probabilities[:1])
    torch.testing.assert_close(both[1:], single, equal_nan=True, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(both[0], both[1], equal_nan=True, atol=1e-4)


def test_shapes_of_outputs_are_kept():
    draw = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    unit, logs = torch.nn.functional.normalize(draw, dim=1), draw.log_softmax(1)
    assert [shape_of(rows) for rows in (unit, logs, draw)] == ["unit", "log-probabilities", "plain"]
    effects = 0.3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    assert shape_of(moved(unit[0], effects, "unit")) == "unit"
    assert shape_of(moved(logs[0], effects, "log-probabilities")) == "log-probabilities"
    torch.testing.assert_close(moved(draw[0], effects, "plain"), draw[0] + effects)
    direction = moved(unit[0], effects, "unit")[2]
    torch.testing.assert_close(direction, (unit[0] + effects[2]) / (unit[0] + effects[2]).norm())


def test_what_needs_more_than_outputs_is_estimated_by_the_lexical_transport(model, judge):
    """A term with a loss of its own from the batch has a gradient, but no outputs to move."""

    class Own(pf.TextSimilarity):
        def outputs(self, batch):
            return super().outputs(batch) * 1.0

    lm, other = model("gpt2"), judge("sentence").model
    term = Own(other, "Two children are playing")
    probabilities = torch.full((1, len(lm.embedding_table)), 1 / len(lm.embedding_table))
    found = transports.transport(lm, other, "effects", 2).losses(term, [TEXT], probabilities)
    expected = transports.transport(lm, other, "lexical", 2).losses(term, [TEXT], probabilities)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert term.plain_outputs([TEXT]) is None
    assert pf.TargetContinuation(lm, " in the park").plain_outputs([TEXT]) is None


def test_a_language_model_has_no_outputs_to_measure(model):
    with pytest.raises(ModelError, match="use another transport"):
        measure_effects(model("gpt2"), [" dog"])
    assert type(transports.transport(model("gpt2"), model("llama"), "effects", 2)) is LexicalTransport


def test_a_word_without_room_has_no_effect(judge):
    model = judge("bert").model
    long = " dog" * (model.max_length - 4)
    found, _ = measure_effects(model, [" dog", long], ["A man is looking at"])
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


def test_effects_are_measured_once_and_then_read_from_the_cache(model, judge, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path))
    lm, other = model("gpt2"), judge("sentence").model
    first = transports.TRANSPORTS["effects"](lm, other, 2)
    assert "once for these models" in caplog.text
    monkeypatch.setattr(transports, "measure_effects", None)
    again = transports.TRANSPORTS["effects"](lm, other, 1)
    assert torch.equal(first.effects, again.effects)
    (folder,) = (tmp_path / "adapters").iterdir()
    (maps,) = folder.glob("*.safetensors")
    maps.write_bytes(b"damaged")
    monkeypatch.undo()
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path))
    mended = transports.TRANSPORTS["effects"](lm, other, 1)
    assert "damaged" in caplog.text
    assert torch.equal(first.effects, mended.effects)


@pytest.mark.parametrize("kind", transports.TRANSPORTS)
def test_every_transport_has_estimates_for_words(model, judge, kind):
    lm, term = model("gpt2"), judge("clip")
    found = transports.transport(lm, term.model, kind, 2)
    assert found is transports.transport(lm, term.model, kind, 2)
    probabilities = torch.full((2, len(lm.embedding_table)), 1 / len(lm.embedding_table))
    losses = found.losses(term, [TEXT, "dog"], probabilities)
    assert losses.shape == (2, len(lm.embedding_table))
    words = LexicalTransport(lm, term.model, 1).tokens
    assert losses[:, words].isfinite().all()
