"""``promptfuse invert``: inputs of every kind, broken ones, files of results, pages and plots."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("few_words")

COMMAND = """\
import json
while True:
    try:
        line = input()
    except EOFError:
        break
    for text in json.loads(line):
        print(json.dumps([len(text), text.count("a"), 1]), flush=True)
"""


@pytest.fixture
def invert(promptfuse: Run, checkpoint: Callable[[str], Path]) -> Run:
    """Call the command with tiny models."""

    def run(*arguments: object, encoder: bool = True) -> tuple[int, str, str]:
        models = ["--lm", checkpoint("gpt2"), *(["--encoder", checkpoint("clip")] if encoder else [])]
        return promptfuse("invert", *arguments, *models, "--budget", 10, "--length", 2)

    return run


@pytest.fixture
def width(model: Callable[..., Any]) -> int:
    """How many numbers the tiny encoder gives."""
    return int(model("clip").text_features(model("clip").encode(["a"])).shape[1])


def test_a_text_is_inverted(invert: Run) -> None:
    code, out, err = invert("--text", "A dog runs.")
    assert code == 0
    assert out.startswith("A dog runs.\t")
    assert "1 of 1 inverted; cosine mean " in err
    assert "1 of 1 find their source first, 0 exact; " in err


def test_json_has_a_line_for_each_and_the_summary(invert: Run, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("A dog.\nThe best film\n")
    path = tmp_path / "texts.txt"
    code, out, err = invert("--text", path, "A black bird", "--json")
    assert (code, err) == (0, "")
    *rows, last = (json.loads(line) for line in out.splitlines())
    assert [row["id"] for row in rows] == [f"{path}:1", f"{path}:2", "A black bird"]
    assert [row["source"] for row in rows] == ["A dog.", "The best film", "A black bird"]
    for row in rows:
        assert row["queries"] <= 10
        assert -1 <= row["similarity"] <= 1
        assert row["among"] == 3
        assert row["curve"][-1][1] >= row["similarity"] - 1e-5
    summary = last["summary"]
    assert (summary["inputs"], summary["inverted"], summary["failed"]) == (3, 3, 0)
    assert summary["rank_1"] == pytest.approx(sum(row["rank"] == 1 for row in rows) / 3)


def test_broken_vectors_have_a_line_each_and_the_rest_is_done(
    invert: Run, tmp_path: Path, width: int
) -> None:
    good = [float(number) for number in range(1, width + 1)]
    lines: list[Any] = [good, [], good[:3], {"id": "named", "embedding": good}, [float("nan")] * width]
    lines += [[0.0] * width, ["a"] * width, {"id": "named", "embedding": good}, {"vector": good}, "text"]
    path = tmp_path / "vectors.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "not JSON\n")
    code, out, err = invert("--embedding", path)
    assert code == 0
    assert [line.partition("\t")[0] for line in out.splitlines()] == [f"{path}:1", "named"]
    *errors, summary = err.splitlines()
    reasons = [
        "line 2 has no numbers",
        "line 3 has 3 numbers, but ",
        "line 5 has NaN or infinite numbers",
        "line 6 is all zeros",
        "line 7 has 'a' in place of a number",
        f"line 8 has the id 'named' of {path}: line 4",
        "line 9 has no key 'embedding'",
        "line 10 has 'text' in place of numbers",
        "line 11 is not JSON",
    ]
    for line, reason in zip(errors, reasons, strict=True):
        assert line.startswith(f"promptfuse: {path}: {reason}")
        assert "; " in line  # The remedy.
    assert summary.startswith("2 of 11 inverted, 9 failed; ")


def test_nothing_done_at_all_is_exit_code_2(invert: Run, tmp_path: Path, width: int) -> None:
    np.save(tmp_path / "zeros.npy", np.zeros((2, width)))
    code, out, err = invert("--embedding", tmp_path / "zeros.npy")
    assert (code, out) == (2, "")
    assert [line.partition(";")[0] for line in err.splitlines()] == [
        f"promptfuse: {tmp_path / 'zeros.npy'}: row {number} is all zeros, which point nowhere"
        for number in (0, 1)
    ]


def test_photos_and_one_that_is_missing(invert: Run, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    page = tmp_path / "page.html"
    code, out, err = invert("--image", tmp_path / "none.png", tmp_path / "a.png", "--trace", page)
    assert code == 0
    assert out.startswith(f"{tmp_path / 'a.png'}\t")
    assert err.startswith(f"promptfuse: {tmp_path / 'none.png'}: no such file")
    text = page.read_text()
    assert "data:image/jpeg;base64," in text
    assert "Cosine against queries" in text


def test_results_are_added_to_a_file_and_not_made_again(invert: Run, tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "out.jsonl"
    texts.write_text("A dog.\n\n")
    assert invert("--text", texts, "--out", out)[0] == 0
    first = out.read_text()
    texts.write_text("A dog.\nThe best film\n")
    page, plot = tmp_path / "page.html", tmp_path / "plot.png"
    code, printed, err = invert("--text", texts, "--out", out, "--trace", page, "--plot", plot)
    assert code == 0
    assert printed.startswith(f"{texts}:2\t")
    assert "2 of 2 inverted; " in err
    assert out.read_text().startswith(first)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"{texts}:1", f"{texts}:2"]
    assert "The best film" in page.read_text()
    assert "1 text found by an earlier run not shown" in page.read_text()
    assert plot.read_bytes().startswith(b"\x89PNG")
    code, printed, _ = invert("--text", texts, "--out", out)
    assert (code, printed) == (0, "")
    code, _, err = invert("--text", texts, "--out", out, "--style", "words")
    assert code == 2
    assert "was made with style 'prose', not 'words'; give another file" in err


def test_a_command_is_an_encoder(invert: Run, tmp_path: Path) -> None:
    script = tmp_path / "encode.py"
    script.write_text(COMMAND)
    np.save(tmp_path / "one.npy", np.array([5.0, 1.0, 1.0]))
    command = f"{sys.executable} {script}"
    code, out, _ = invert("--embedding", tmp_path / "one.npy", "--encoder-command", command, encoder=False)
    assert code == 0
    assert out.startswith(f"{tmp_path / 'one.npy'}\t")
    np.save(tmp_path / "one.npy", np.array([5.0, 1.0]))
    code, _, err = invert("--embedding", tmp_path / "one.npy", "--encoder-command", command, encoder=False)
    assert code == 2
    assert f"one.npy: has 2 numbers, but {command} gives 3; name the encoder that made it" in err


def test_wrong_options_are_told_in_one_line(invert: Run, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("A dog.\n")
    for arguments, message in (
        ((), "--text, --embedding and --image: none is given; give one"),
        (("--text", "a", "--image", "b.jpg"), "--text, --embedding and --image: give one of them"),
        (("--text", "a", "--workers", 0), "--workers 0: must be at least 1"),
        (("--text", "a", "--style", "verse"), "there is no style 'verse'; did you mean 'prose'?"),
        (("--text", "a", "--encoder-command", "cat"), "--encoder and --encoder-command: give one of them"),
        (("--text", "a", "--out", tmp_path / "out.txt"), "the name must end in .jsonl"),
        (("--text", "a", "--out", tmp_path / "no" / "out.jsonl"), "its folder does not exist"),
        (("--text", "a", "--trace", "page.txt"), "the name must end in .html"),
        (("--text", "a", "--plot", "plot.txt"), "must end in .png, .svg or .pdf"),
        (("--text", "a", "--seconds", 0), "seconds: must be above 0"),
        (("--embedding", tmp_path / "none.npy"), "none.npy: no such file"),
        (("--embedding", tmp_path / "texts.txt"), "is not a file of vectors"),
    ):
        code, out, err = invert(*arguments)
        assert (code, out) == (2, ""), arguments
        assert message in err
        assert err.count("\n") == 1
