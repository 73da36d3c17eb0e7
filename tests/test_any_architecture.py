"""Values do not depend on the batch, gradients come back, recipes run or are refused: for any architecture.

Nothing here goes by the names of architectures: the package finds out by trials what each of them takes.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

import promptfuse as pf
from promptfuse.errors import ConfigError
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.evaluation.recipes.caches import keeps_cache, module_keeps_cache
from promptfuse.evaluation.recipes.decoding import read
from promptfuse.models import SequenceClassifier
from promptfuse.models.trial import Verdict, changing_length
from promptfuse.objectives.gradients import text_gradient
from tests.architectures import (
    CLASSIFIERS,
    ENCODERS,
    LANGUAGE_MODELS,
    TOKENIZERS,
    classifier,
    image_text_model,
    language_model,
    sentence_encoder,
)
from tests.conftest import quiet

PARENTS = ("A brown dog runs through the", "Two children", "A", "A man in a red shirt rides a bicycle")
TEXTS = [f"{parent}{word}" for parent in PARENTS for word in (" grass", " xyzzy in the park.")]
FROM = [parent for parent in PARENTS for _ in range(2)]
WITHOUT_CACHE = {
    "FalconMamba", "Gemma3n", "Jamba", "Lfm2", "Mamba", "Mamba2", "OpenAIGPT", "RecurrentGemma", "Rwkv",
    "XLM",
}  # fmt: skip
"""Language models that keep something else than keys and values of every token, or nothing, or that carry
several hidden states of each token."""
PADDING_MATTERS = {"ConvBert", "FNet", "MobileBert", "Nystromformer", "XLNet", "Yoso"}
WITHOUT_GRADIENT = {"Reformer"}

pytestmark = pytest.mark.filterwarnings("ignore")  # Some architectures ask for optional kernels.


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def assert_exact(term: pf.Term, grown: bool = True) -> None:
    """A mixed batch of short and long texts gives what each text does by itself."""
    exact = [term.exact(text) for text in TEXTS]
    assert len({round(value, 6) for value in exact}) > 4
    for options in ({}, {"batch_size": 3}, *([{"parents": FROM}] if grown else [])):
        assert term.score(TEXTS, **options).tolist() == pytest.approx(exact, abs=1e-4)
    assert [term.exact(text) for text in TEXTS] == pytest.approx(exact, abs=1e-5)


def assert_gradients(term: pf.Term) -> None:
    """Gradients at a slot and at a text are there."""
    model = term.model
    probe = model.embedding_table.mean(0).expand(len(PARENTS), -1)
    slots = term.slot_gradient(list(PARENTS), probe, 2).gradient
    assert torch.isfinite(slots).all()
    assert slots.abs().max() > 0
    found = text_gradient(term, TEXTS[0]).gradient
    assert torch.isfinite(found).all()
    assert found.abs().max() > 0


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_language_models(kind: str) -> None:
    lm = language_model(kind)
    for term in (pf.Fluency(lm, suffix=" in"), pf.TargetContinuation(lm, [" the park.", " snow"])):
        assert_exact(term)
        assert_gradients(term)
    rows = lm.plain_ids(TEXTS)
    alone = torch.cat([lm.next_log_probabilities([row], reuse=False) for row in rows])
    for reuse in (False, True, True):
        found = lm.next_log_probabilities(rows, reuse=reuse)
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_reading_token_by_token(kind: str) -> None:
    """Behind keys and values where there are any, else whole: what is read is the same."""
    lm = language_model(kind)
    assert keeps_cache(lm) == (kind not in WITHOUT_CACHE)
    # The configuration alone tells as much.
    assert module_keeps_cache(lm.module.config) == keeps_cache(lm)
    ids = torch.tensor([[*lm.start_ids, *row][:20] for row in lm.plain_ids([TEXTS[1], TEXTS[-1]])])[:, :14]
    states: list[torch.Tensor] = []
    head = lm.module.get_output_embeddings()
    with torch.no_grad(), head.register_forward_pre_hook(lambda _, args: states.append(args[0])):
        whole = lm.module(input_ids=ids)
    reading = read(lm, ids[:, :11])
    for column in range(11, ids.shape[1]):
        reading = read(lm, ids[:, column : column + 1], reading.layers)
    expected = lm.of_all_ids(whole.logits[:, -1].log_softmax(-1))
    torch.testing.assert_close(reading.log_probabilities, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reading.hidden, states[-1][:, -1:], rtol=1e-4, atol=1e-4)


def test_more_ids_are_read_than_predicted() -> None:
    lm = language_model("Moshi")
    unknown = len(lm.embedding_table) - lm.module.lm_head.out_features
    assert unknown == 1
    found = lm.next_log_probabilities(lm.plain_ids(["A dog"]))
    assert found.shape == (1, len(lm.embedding_table))
    assert found[0, -unknown:].tolist() == [-float("inf")] * unknown
    objective = pf.Objective(pf.Fluency(lm))
    result = pf.optimize(objective, pf.AutoDAN(candidates=4), steps=3)
    assert result.value == pytest.approx(objective.exact(result.text).value, abs=1e-4)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classifiers(kind: str) -> None:
    model = classifier(kind)
    term = pf.ClassProbability(model, "LABEL_1")
    assert model.verdict.padded == (kind not in PADDING_MATTERS)
    assert_exact(term)
    if kind not in WITHOUT_GRADIENT:
        assert_gradients(term)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_text_towers(kind: str) -> None:
    term = pf.TextSimilarity(image_text_model(kind), "A film with children.")
    assert_exact(term)
    assert_gradients(term)


@pytest.mark.parametrize("kind", ENCODERS)
def test_sentence_encoders(kind: str) -> None:
    encoder = sentence_encoder(kind)
    assert encoder.verdict.padded == (kind not in PADDING_MATTERS)
    term = pf.TextSimilarity(encoder, "A film with children.")
    assert_exact(term)
    assert_gradients(term)


def test_rows_longer_than_a_border_stand_with_rows_of_their_length_only() -> None:
    """The angles of longrope depend on the longest row, and so does what is kept of the rows' beginnings."""
    lm = language_model("Phi3")
    assert lm.verdict.border == 16
    assert lm.reader is None or lm.reader.longest <= 16
    mixed = Verdict(border=16)
    assert mixed.groups([3, 16, 5]) == [[0, 1, 2]]
    assert mixed.groups([3, 17, 5, 20, 17]) == [[0, 2], [1, 4], [3]]
    assert Verdict(padded=False).groups([3, 4, 3]) == [[0, 2], [1]]
    assert Verdict(batched=False).groups([3, 3]) == [[0], [1]]
    for kind, border in (("longrope", 16), ("dynamic", 64), ("yarn", 2**31), ("default", 2**31)):
        settings = {"rope_type": kind, "original_max_position_embeddings": 16}
        if kind == "dynamic":
            settings.pop("original_max_position_embeddings")
        config = SimpleNamespace(rope_parameters={"full": settings}, max_position_embeddings=64)
        assert changing_length(config) == border


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line(promptfuse: Any, tmp_path: Path) -> None:
    folder = tmp_path / "reformer"
    classifier("Reformer").module.save_pretrained(folder)
    classifier("Reformer").tokenizer.save_pretrained(folder)
    preset = tmp_path / "preset.yaml"
    preset.write_text(yaml.safe_dump({"base": "mini", "steps": 2, "candidates": 2, "beams": 1}))
    photo = sorted((Path(__file__).parents[1] / "examples" / "photos").glob("*.jpg"))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = promptfuse("caption", photo, "--models", preset, "--steer", f"{folder}:LABEL_1=1")
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if "gradient" in line]
    assert line == (
        f"warning: {folder}: the gradient of ReformerForSequenceClassification at the text is zero, so its "
        "terms only rank texts"
    )


def test_a_model_without_a_gradient_only_ranks_and_says_so_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = SequenceClassifier(
            classifier("Reformer").module, classifier("Reformer").tokenizer, "models/reformer"
        )
        term = pf.ClassProbability(model, "LABEL_1")
        probe = model.embedding_table[:2]
        for _ in range(2):
            assert not term.has_gradient
            assert not term.slot_gradient(["A dog", "A man in a red"], probe, 2).gradient.any()
            assert not text_gradient(term, "A dog").gradient.any()
        objective = pf.Objective(pf.Fluency(language_model("GPT2")), term)
        for method in (pf.GCG(batch=4, top_k=4, init="A dog"), pf.PEZ(length=2), pf.AutoDAN(candidates=4)):
            result = pf.optimize(objective, method, steps=2)
            assert result.value == pytest.approx(objective.exact(result.text).value, abs=1e-4)
    said = [str(one.message) for one in caught if "models/reformer" in str(one.message)]
    assert len(said) == 1
    assert "only rank texts" in said[0]


def test_an_encoder_decoder_reads_the_text_in_both_halves() -> None:
    """The gradient is that of what both are given: of encoder and decoder, the latter one place behind."""
    model = classifier("Bart")
    term = pf.ClassProbability(model, "LABEL_1")
    assert len(model.lookups) == 2
    batch = model.encode([TEXTS[0]])
    own = model.embed(batch.ids)
    with torch.no_grad(), model.embeddings_from(own):
        torch.testing.assert_close(term.losses(batch), term.losses(model.encode([TEXTS[0]])))
    step, direction = 1e-3, torch.randn(own.shape, generator=torch.Generator().manual_seed(0))
    embeddings = own.clone().requires_grad_()
    with torch.enable_grad(), model.embeddings_from(embeddings):
        (gradient,) = torch.autograd.grad(term.losses(batch).sum(), embeddings)
    sides = []
    for sign in (1, -1):
        with torch.no_grad(), model.embeddings_from(own + sign * step * direction):
            sides.append(float(term.losses(batch)))
    assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(float((gradient * direction).sum()), rel=0.05)
    # With other ids in place of the words the embeddings alone decide.
    other = batch.ids.clone()
    inside = slice(*batch.text_spans[0])
    other[0, inside] = other[0, inside].flip(0)
    changed = model.collate([other[0].tolist()], batch.text_spans)
    with torch.no_grad(), model.embeddings_from(own):
        torch.testing.assert_close(term.losses(changed), term.losses(batch))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GPT2", "Phi3", *sorted(WITHOUT_CACHE)])
def test_every_recipe_runs_or_is_refused_before(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promptfuse: Any
) -> None:
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path / "cache"))
    lm = language_model(kind)
    lm.module.save_pretrained(tmp_path / "lm")
    lm.tokenizer.save_pretrained(tmp_path / "lm")
    preset = {"lm": str(tmp_path / "lm"), "image_text": "mini-clip", "sentiment": "mini-tone"}
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset | {"candidates": 3, "beams": 1}))
    photo = Path(__file__).parents[1] / "examples" / "photos"
    (tmp_path / "photos").mkdir()
    shutil.copy(sorted(photo.glob("*.jpg"))[0], tmp_path / "photos")
    for name, changes in {
        "ours": {"steps": 2},
        "best-of-n": {"count": 12, "steps": 2},
        "best-of-n-image": {"count": 12, "steps": 2},
        "guided-decoding": {"steps": 2, "top_k": 4},
        "gibbs": {"length": 2, "sweeps": 1, "top_k": 3, "start": "draft"},
        "cache-gradient": {"steps": 2, "iterations": 1, "top_k": 4},
    }.items():
        fields = {"base": name, "models": str(tmp_path / "preset.yaml"), **changes}
        run = {"data": str(tmp_path / "photos"), "recipe": fields}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
        code, _, said = promptfuse("run", tmp_path / "run.yaml", "--validate")
        if name == "cache-gradient" and kind in WITHOUT_CACHE:
            assert code == 2
            assert said.count("\n") == 1
            assert name in said
            assert str(tmp_path / "lm") in said
            assert "another recipe" in said
            continue
        assert code == 0, said
        describer = load_recipe(fields).build()
        describer.load()
        assert describer(sorted((tmp_path / "photos").glob("*"))[0], seed=1).text


def test_a_recipe_that_needs_a_cache_is_refused_at_loading_too(tmp_path: Path) -> None:
    lm = language_model("Mamba")
    lm.module.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    preset = {"lm": str(tmp_path), "image_text": "mini-clip", "sentiment": "mini-tone"}
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset))
    describer = load_recipe("cache-gradient", models=str(tmp_path / "preset.yaml")).build()
    with pytest.raises(ConfigError, match=r"recipe cache-gradient: .* does not have keys and values"):
        describer.load()
