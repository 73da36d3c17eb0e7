"""Inversions: the budget holds, the nearest text is returned, ranks are right, black boxes work."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import promptfuse as pf
from promptfuse.tasks.inversion import Inverter
from promptfuse.tasks.inversion_file import InversionFile
from promptfuse.tasks.inversion_inputs import Item, read_targets, text_items
from promptfuse.tasks.inversion_search import STYLES
from promptfuse.tasks.inversion_summary import summarize
from promptfuse.tasks.query_meter import BudgetSpentError, QueryMeter
from promptfuse.tasks.text_encoders import BlackBoxEncoder, CommandEncoder

pytestmark = pytest.mark.usefixtures("few_words")

TEXTS = ["A dog runs.", "Two children playing", "the best film"]

COMMAND = """\
import json, sys, zlib
for line in sys.stdin:
    for text in json.loads(line):
        print(json.dumps([zlib.crc32(f"{n}{text}".encode()) / 2**31 - 1 for n in range(8)]), flush=True)
"""


@pytest.fixture
def models(model: Callable[..., Any]) -> dict[str, Any]:
    """A tiny language model and a tiny encoder of texts and photos."""
    return {"lm": model("gpt2"), "encoder": model("clip")}


class Counted:
    """A black box that counts the texts that it is given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: list[str]) -> Any:
        self.texts += texts
        return np.array([[math.sin(len(text)), text.count("a"), 1.0] for text in texts])


def cosine(a: Any, b: Any) -> float:
    a, b = (torch.as_tensor(one, dtype=torch.float64) for one in (a, b))
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("budget", [2, 3, 10, 37, 60])
def test_no_encoder_is_asked_more_than_the_budget_allows(models: dict[str, Any], budget: int) -> None:
    box = Counted()
    found = pf.invert(embedding=[1, 2, 3], lm=models["lm"], encoder=box, budget=budget, length=4)
    read = box.texts[1:]  # The first tells how wide the vectors are.
    assert len(read) == found.queries <= budget
    assert found.queries > budget // 4


def test_gradients_count_as_queries(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    encoder = models["encoder"]
    plain = type(encoder).outputs

    def counted(self: Any, batch: Any) -> Any:
        if self is encoder:
            rows.append(len(batch.rows))
        return plain(self, batch)

    encoder.text_features(encoder.encode(["a"]))
    found = pf.invert(text="A dog runs.", budget=50, length=4, **models)
    monkeypatch.setattr(type(encoder), "outputs", counted)
    again = pf.invert(text="A dog runs.", budget=50, length=4, **models)
    assert (again.text, again.queries) == (found.text, found.queries)
    assert sum(rows) - 1 == again.queries <= 50  # One more is the source's own.
    assert again.result is not None
    assert again.queries > again.result.exact_evaluations + 1


def test_the_text_is_scored_from_scratch_and_the_curve_ends_with_the_nearest(models: dict[str, Any]) -> None:
    found = pf.invert(text="A dog runs.", budget=60, length=4, **models)
    features = models["encoder"].text_features(models["encoder"].encode([found.text, "A dog runs."]))
    assert found.similarity == pytest.approx(cosine(*features), abs=1e-6)
    assert [one.similarity for one in found.curve] == sorted(one.similarity for one in found.curve)
    assert found.curve[-1].similarity >= found.similarity - 1e-5
    assert found.nll == pytest.approx(pf.Fluency(models["lm"]).exact(found.text), abs=1e-6)
    assert found.result is not None
    assert found.result.text == found.text
    values = [step.best.terms["embedding"] for step in found.result.history if step.best.terms]
    assert 1 - found.similarity <= min(values) + 1e-5


def test_a_text_and_its_embedding_are_the_same_search_and_a_photo_is_embedded(models: dict[str, Any]) -> None:
    encoder = models["encoder"]
    settings = {**models, "budget": 30, "length": 3}
    vector = encoder.text_features(encoder.encode(["A dog runs."]))[0]
    by_text, by_vector = pf.invert(text="A dog runs.", **settings), pf.invert(embedding=vector, **settings)
    assert (by_text.text, by_text.source) == (by_vector.text, "A dog runs.")
    assert by_vector.source is None
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    photo = pf.invert(image=pixels, **settings)
    features = encoder.text_features(encoder.encode([photo.text]))
    seen = encoder.image_features([pf.load_image(pixels)])
    assert photo.kind == "image"
    assert photo.similarity == pytest.approx(cosine(features[0], seen[0]), abs=1e-5)


@pytest.mark.parametrize("style", STYLES)
def test_every_text_is_of_the_style(models: dict[str, Any], style: Any) -> None:
    found = pf.invert(text="A dog runs.", budget=80, length=6, style=style, **models)
    rules = STYLES[style].constraints
    assert all(rules.allows(one.text) for one in found.curve)
    if style == "words":
        assert all(one.isalpha() or one == " " for one in found.text)


def test_styles_say_what_they_are() -> None:
    prompt, words = STYLES["prompt"].constraints, STYLES["words"].constraints
    for text in ("a dog, a red ball", "a dog,", "oil painting, 19th-century"):
        assert prompt.allows(text), text
    for text in (
        "a dog. a ball",
        ", a dog",
        "a dog,, a ball",
        "a dog ,",
        "one two three four five six seven",
    ):
        assert not prompt.allows(text), text
    assert words.allows("dog beach ball")
    for text in ("dog, beach", "dog beach dog", "dog 2"):
        assert not words.allows(text), text
    with pytest.raises(pf.ConfigError, match=r"no style 'proze'; did you mean 'prose'\?"):
        Inverter(style="proze")


def test_seconds_end_a_search(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    long = pf.invert(text="A dog runs.", budget=80, length=6, **models)
    short = pf.invert(text="A dog runs.", budget=80, length=6, seconds=1e-9, **models)
    assert short.queries < long.queries
    assert short.text


def test_ranks_are_counted_among_all_inputs(models: dict[str, Any]) -> None:
    found = pf.invert_many(text=TEXTS, budget=30, length=3, **models)
    encoder = models["encoder"]
    sources = encoder.text_features(encoder.encode(TEXTS))
    for number, one in enumerate(found):
        own = encoder.text_features(encoder.encode([one.text]))[0]
        similarities = [cosine(own, source) for source in sources]
        above = sum(other > similarities[number] + 1e-6 for other in similarities)
        assert (one.rank, one.among, one.source) == (1 + above, 3, TEXTS[number])
    summary = summarize(found, failed=1)
    assert summary.rank_1 == pytest.approx(sum(one.rank == 1 for one in found) / 3)
    assert (summary.inputs, summary.inverted, summary.failed) == (4, 3, 1)
    assert str(summary).startswith("3 of 4 inverted, 1 failed; cosine mean ")
    alone = pf.invert(text=TEXTS[1], budget=30, length=3, **models)
    assert (alone.text, alone.similarity) == (found[1].text, found[1].similarity)


def test_broken_inputs_have_an_error_each_and_the_others_are_done(models: dict[str, Any]) -> None:
    seen: dict[str, Any] = {}
    width = int(models["encoder"].text_features(models["encoder"].encode(["a"])).shape[1])
    rows = [np.ones(width), [], np.ones(3), np.full(width, math.nan), np.zeros(width), ["a"] * width]
    with pytest.raises(pf.ConfigError, match="embedding 1 has no numbers"):
        pf.invert_many(embedding=rows, budget=10, length=2, on_found=seen.__setitem__, **models)
    assert isinstance(seen.pop("embedding:0"), pf.Inversion)
    assert [str(error).partition(";")[0] for error in seen.values()] == [
        "embedding 1 has no numbers",
        f"embedding 2 has 3 numbers, but {models['encoder'].name} gives {width}",
        "embedding 3 has NaN or infinite numbers",
        "embedding 4 is all zeros, which point nowhere",
        "embedding 5 has 'a' in place of a number",
    ]


def test_arguments_are_checked(models: dict[str, Any], tmp_path: Path) -> None:
    for settings, message in (
        ({}, "text, embedding and image: give one of them"),
        ({"text": "a", "embedding": [1]}, "give one of them"),
        ({"text": " "}, "the text is empty; give at least one word"),
        ({"text": 3}, "the text has 3 in place of a text"),
        ({"text": "a \ud800"}, "the text is not valid Unicode"),
        ({"text": "dog " * 500}, "the text: .* tokens, the model reads at most"),
        ({"text": "a", "budget": 1}, "budget: must be at least 2, got 1"),
        ({"text": "a", "length": 0}, "length: must be at least 1, got 0"),
        ({"text": "a", "seconds": 0}, "seconds: must be above 0"),
        ({"image": tmp_path / "none.jpg"}, "no such file"),
        ({"text": "a", "encoder": 3}, "encoder: 3 is not an encoder"),
        ({"image": "a.jpg", "encoder": len}, "builtins.len reads no photos"),
    ):
        with pytest.raises(pf.PromptfuseError, match=message):
            pf.invert(**{**models, **settings})  # type: ignore[arg-type]
    with pytest.raises(pf.ConfigError, match=r"text: 'a' is not a list"):
        pf.invert_many(text="a", **models)
    with pytest.raises(pf.ConfigError, match="a loaded model cannot be sent to another process"):
        pf.invert_many(text=TEXTS, workers=2, **models)
    with pytest.raises(pf.ConfigError, match=r"no setting 'langth'; did you mean 'length'\?"):
        pf.invert_many(text=TEXTS, langth=2, **models)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda texts: [[1.0, 2.0]] * (len(texts) + 1), "gave 2 vectors for 1 texts; give one for each"),
        (lambda texts: [[math.nan]] * len(texts), "its vector for 'a' has NaN or infinite numbers"),
        (lambda texts: 3.0, "gave 0 vectors for 1 texts"),
        (lambda texts: [[1.0] * len(text) for text in texts], "has 2 numbers, but its first answer gives 1"),
    ],
)
def test_answers_of_a_black_box_are_checked(answer: Any, message: str) -> None:
    encoder = BlackBoxEncoder(answer)
    with pytest.raises(pf.ConfigError, match=message):
        [encoder.features([text]) for text in ("a", "bb")]


def test_a_command_is_an_encoder(models: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "encode it.py"
    script.write_text(COMMAND)
    command = CommandEncoder(f"{sys.executable} '{script}'")
    try:
        features = BlackBoxEncoder(command).features([f"text {number}" for number in range(100)])
        assert features.shape == (100, 8)
        assert not torch.equal(features[0], features[1])
        again = BlackBoxEncoder(command).features(["text 1"])
        assert torch.equal(again[0], features[1])
        found = pf.invert(text="a dog", encoder=command, lm=models["lm"], budget=12, length=2)
        assert found.similarity == pytest.approx(
            cosine(*BlackBoxEncoder(command).features(["a dog", found.text])), abs=1e-6
        )
    finally:
        command.close()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit(3)", "ended with code 3 before it answered"),
        ("input(); print('hello')", "wrote 'hello', which is not JSON"),
        ("input(); print('[]')", "its vector for 'a' has no numbers"),
    ],
)
def test_a_command_that_fails_is_told_in_one_line(tmp_path: Path, script: str, message: str) -> None:
    (tmp_path / "script.py").write_text(script)
    command = CommandEncoder(f"{sys.executable} {tmp_path / 'script.py'}")
    try:
        with pytest.raises(pf.ConfigError, match=message) as stop:
            BlackBoxEncoder(command, command.command).features(["a"])
        assert "\n" not in str(stop.value)
    finally:
        command.close()


def test_commands_that_cannot_be_started() -> None:
    for command, message in (("", "is empty"), ("'open", "close its quotes"), ("/no/such", "check the prog")):
        with pytest.raises(pf.ConfigError, match=message):
            CommandEncoder(command)(["a"])


def test_texts_are_lines_of_a_file_or_a_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"\xef\xbb\xbfA dog.\r\n\r\nA cat.\n")
    assert [(item.id, item.value) for item in text_items(str(path))] == [
        (f"{path}:1", "A dog."),
        (f"{path}:2", ""),
        (f"{path}:3", "A cat."),
    ]
    for text in ("A dog.", "a" * 5000, "a\0b"):
        assert [item.value for item in text_items(text)] == [text]
    path = tmp_path / "texts.jsonl"
    path.write_text('"A dog."\n{"id": 7, "text": "A cat."}\nnone\n')
    found = text_items(str(path))
    assert [(item.id, item.value) for item in found[:2]] == [(f"{path}:1", "A dog."), ("7", "A cat.")]
    assert "is not JSON" in found[2].problem


def test_a_file_of_results_is_gone_on_with(models: dict[str, Any], tmp_path: Path) -> None:
    inverter = Inverter(budget=10, length=2, **models)
    path = tmp_path / "out.jsonl"
    items = [Item(text, text, text) for text in TEXTS]
    targets, broken = read_targets(items, "text", inverter.encoder)
    assert broken == []
    with InversionFile(path, inverter.settings()) as file:
        assert not file.holds(targets[0])
        first = inverter(targets[0])
        file.append(first)
        with pytest.raises(pf.ConfigError, match="in use by another process"), InversionFile(path, {}):
            pass
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])  # A process was killed while it wrote.
    with InversionFile(path, inverter.settings()) as file:
        assert [file.holds(target) for target in targets] == [True, False, False]
        assert file.done[TEXTS[0]] == first
        other, _ = read_targets([Item(TEXTS[0], "", "another text")], "text", inverter.encoder)
        with pytest.raises(pf.ConfigError, match="has another input named"):
            file.holds(other[0])
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-1])  # An editor saved the file.
    with InversionFile(path, inverter.settings()) as file:
        assert file.holds(targets[0])
    assert path.read_bytes() == whole
    (tmp_path / "first.jsonl").write_bytes(whole[: len(whole) // 2])  # Killed at its first line.
    with InversionFile(tmp_path / "first.jsonl", inverter.settings()) as file:
        assert file.done == {}
    assert (tmp_path / "first.jsonl").read_bytes() == b""
    (tmp_path / "first.jsonl").unlink()
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]
    with (
        pytest.raises(pf.ConfigError, match=r"was made with budget 10, not 11; give another file"),
        InversionFile(path, {**inverter.settings(), "budget": 11}),
    ):
        pass
    for name, content in (
        ("other.jsonl", '{"id": 1}\n'),
        ("short.jsonl", '{"id": "1"}'),
        ("rows.jsonl", "[1, 2]\n"),
        ("t.jsonl", "text"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(pf.ConfigError, match="is not an inversion"), InversionFile(tmp_path / name, {}):
            pass
        assert (tmp_path / name).read_text() == content


def test_an_inversion_is_json_and_back(models: dict[str, Any]) -> None:
    found = pf.invert(text="A dog runs.", budget=10, length=2, **models)
    assert pf.Inversion.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_meter_grants_no_more_than_is_left() -> None:
    meter = QueryMeter(5)
    meter.see(["a", "b"], [0.5, 0.7])
    meter.spend(1)
    assert (meter.grant(9), meter.queries) == (2, 3)
    with pytest.raises(BudgetSpentError):
        meter.spend(3)
    meter.see(["c", " "], [0.25, 0.0])
    assert [tuple(one) for one in meter.curve] == [(1, 0.5, "a"), (4, 0.75, "c")]
    assert meter.grant(0) == 0
    with pytest.raises(BudgetSpentError):
        meter.grant(1)


@pytest.mark.slow
def test_workers_find_what_one_process_finds() -> None:
    settings = {"budget": 30, "length": 3}
    several = pf.invert_many(text=TEXTS, workers=2, **settings)
    alone = pf.invert_many(text=TEXTS, **settings)
    for mine, other in zip(several, alone, strict=True):
        assert (mine.id, mine.text, mine.queries, mine.rank) == (
            other.id,
            other.text,
            other.queries,
            other.rank,
        )
        assert mine.similarity == pytest.approx(other.similarity, abs=1e-5)
