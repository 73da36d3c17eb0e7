"""Similarity to a vector: its value by hand, gradients, files, and vectors that are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from promptfuse.config import load_config
from promptfuse.errors import ConfigError, ModelError
from promptfuse.objectives import EmbeddingSimilarity, TextSimilarity
from promptfuse.objectives.vectors import read_vector_rows, unit_vector


@pytest.fixture(params=["encoder", "clip"])
def judge(request: pytest.FixtureRequest, model: Callable[..., Any], encoder: Callable[..., Any]) -> Any:
    """A loader of a model that has features of texts, given a type."""
    return encoder if request.param == "encoder" else lambda dtype=torch.float32: model("clip", dtype)


def width_of(loaded: Any) -> int:
    return int(loaded.text_features(loaded.encode(["a"])).shape[1])


def test_the_loss_is_one_minus_the_cosine_by_hand(judge: Any, score_is_exact: Any) -> None:
    loaded = judge()
    vector = np.random.default_rng(0).normal(size=width_of(loaded)) * 7
    term = EmbeddingSimilarity(loaded, vector)
    own = loaded.text_features(loaded.encode(["a dog"]))[0].tolist()
    dot = sum(a * b for a, b in zip(own, vector.tolist(), strict=True))
    norms = math.sqrt(sum(a * a for a in own)) * math.sqrt(sum(b * b for b in vector.tolist()))
    assert term.exact("a dog") == pytest.approx(1 - dot / norms, abs=1e-6)
    score_is_exact(term)


def test_the_vector_of_a_text_is_that_text(judge: Any) -> None:
    loaded = judge()
    vector = loaded.text_features(loaded.encode(["A black bird"]))[0]
    term, text = EmbeddingSimilarity(loaded, vector), TextSimilarity(loaded, "A black bird")
    for other in ("A black bird", "a dog"):
        assert term.exact(other) == pytest.approx(text.exact(other), abs=1e-6)
    assert EmbeddingSimilarity(loaded, 1e3 * vector).exact("a dog") == pytest.approx(
        term.exact("a dog"), abs=1e-6
    )


def test_several_vectors_count_their_mean(judge: Any) -> None:
    loaded = judge()
    vectors = np.random.default_rng(1).normal(size=(3, width_of(loaded)))
    each = [EmbeddingSimilarity(loaded, vector).exact("a dog") for vector in vectors]
    for several in (vectors, vectors.tolist(), torch.tensor(vectors)):
        assert EmbeddingSimilarity(loaded, several).exact("a dog") == pytest.approx(sum(each) / 3, abs=1e-6)


def test_gradients(judge: Any, slope_is_right: Any, slot_is_the_next_word: Any) -> None:
    vector = np.random.default_rng(2).normal(size=width_of(judge()))
    slope_is_right(EmbeddingSimilarity(judge(torch.float64), vector, suffix="."))
    slot_is_the_next_word(EmbeddingSimilarity(judge(), vector))


def test_descriptions(judge: Any, same_search: Any) -> None:
    loaded = judge()
    vector = np.arange(1.0, width_of(loaded) + 1)
    assert same_search(EmbeddingSimilarity(loaded, vector), EmbeddingSimilarity(loaded, vector.tolist()))
    assert not same_search(EmbeddingSimilarity(loaded, vector), EmbeddingSimilarity(loaded, vector[::-1]))


BAD = {
    "has no numbers": [],
    "has NaN or infinite numbers": [1.0, math.nan, 2.0],
    "has NaN or infinite": [1.0, math.inf, 2.0],
    "is all zeros": [0.0, 0.0],
    "in place of a number; give numbers alone": [1.0, "two"],
    "in place of numbers": "embedding",
    "has None in place of a number": [None, 1.0],
    "out of range": [10**400, 1],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_vectors_are_refused_in_one_line(encoder: Callable[..., Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as stop:
        EmbeddingSimilarity(encoder(torch.float32), BAD[message])
    assert str(stop.value).startswith("vector ")
    assert "\n" not in str(stop.value)


def test_another_width_names_both(encoder: Callable[..., Any]) -> None:
    loaded = encoder(torch.float32)
    with pytest.raises(
        ConfigError, match=rf"has 3 numbers, but {loaded.name} gives {width_of(loaded)}; name"
    ):
        EmbeddingSimilarity(loaded, [1, 2, 3])
    with pytest.raises(ConfigError, match="vector 1 has 2 numbers, but the first vector gives 3"):
        EmbeddingSimilarity(loaded, [[1, 2, 3], [1, 2]])
    with pytest.raises(ConfigError, match="vector and file: give one of them"):
        EmbeddingSimilarity(loaded)
    with pytest.raises(ModelError, match="EmbeddingSimilarity needs a loaded model"):
        EmbeddingSimilarity("minilm", [1, 2])  # type: ignore[arg-type]


def test_large_and_small_numbers_keep_their_direction() -> None:
    for scale in (1e300, 1e-300, 1):
        assert unit_vector([3 * scale, 4 * scale]).tolist() == pytest.approx([0.6, 0.8], abs=1e-7)


ROWS = np.array([[3.0, 4.0], [0.0, 2.0]], dtype=np.float16)


def written(folder: Path, name: str) -> Path:
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, ROWS)
    elif path.suffix == ".safetensors":
        save_file({"emb": ROWS} if name == "one.safetensors" else {"a": ROWS[0], "b": ROWS[1]}, path)
    else:
        lines = [ROWS[0].tolist(), {"id": "second", "embedding": ROWS[1].tolist()}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("rows.npy", ["rows.npy:0", "rows.npy:1"]),
        ("one.safetensors", ["one.safetensors:0", "one.safetensors:1"]),
        ("named.safetensors", ["a", "b"]),
        ("lines.jsonl", ["lines.jsonl:1", "second"]),
    ],
)
def test_every_format_is_read(tmp_path: Path, name: str, ids: list[str]) -> None:
    rows = list(read_vector_rows(written(tmp_path, name)))
    assert [row.id.removeprefix(f"{tmp_path}/") for row in rows] == ids
    assert [unit_vector(row.values).tolist() for row in rows] == [pytest.approx([0.6, 0.8]), [0.0, 1.0]]


def test_files_that_cannot_be_read_say_so_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "torn.safetensors").write_bytes(b"\x00" * 5)
    (tmp_path / "vectors.pt").write_bytes(b"")
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    for name, reason in {
        "pickle.npy": "is damaged or not a .npy file",
        "torn.npy": "is damaged or not a .npy file",
        "torn.safetensors": "is damaged or not a .safetensors file",
        "vectors.pt": "is not a file of vectors; give a .npy, .safetensors, .jsonl file",
        "none.npy": "no such file",
        "cube.npy": "has an array of shape (2, 2, 2)",
    }.items():
        with pytest.raises(ConfigError) as stop:
            read_vector_rows(tmp_path / name)
        assert str(stop.value).startswith(f"{tmp_path / name}: {reason}")
        assert "\n" not in str(stop.value)


def test_a_search_of_a_file_reads_its_vector(
    encoder: Callable[..., Any], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    loaded = encoder(torch.float32)
    np.save(tmp_path / "target.npy", np.ones(width_of(loaded)))
    config = tmp_path / "search.yaml"
    config.write_text(
        f"models: {{lm: {checkpoint('gpt2')}, encoder: {loaded.name}}}\n"
        "terms:\n"
        "  fluency: {kind: Fluency, model: lm}\n"
        "  near: {kind: EmbeddingSimilarity, model: encoder, file: target.npy, weight: 3}\n"
    )
    term = load_config(config).objective().terms["near"]
    expected = EmbeddingSimilarity(loaded, np.ones(width_of(loaded)))
    assert term.exact("a dog") == pytest.approx(expected.exact("a dog"), abs=1e-6)
    assert term.weight == 3
    with pytest.raises(ConfigError, match=r"terms\.near.*none\.npy: no such file"):
        load_config(config, {"terms.near.file": "none.npy"})
    listed = {"kind": "EmbeddingSimilarity", "model": "encoder", "vector": [1, 0.5]}
    assert load_config(config, {"terms.near": listed}).terms["near"].vector == [1, 0.5]
    with pytest.raises(ConfigError, match="vector is all zeros"):
        load_config(config, {"terms.near": {**listed, "vector": [0, 0]}})
