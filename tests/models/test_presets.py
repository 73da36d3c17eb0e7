from __future__ import annotations

from pathlib import Path

import pytest

from promptfuse.errors import ConfigError
from promptfuse.models import EMBEDDED, PRESETS, Preset, load_preset

MODELS = {"lm": "gpt2", "image_text": "clip", "sentiment": "bert"}


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def make(content: str | bytes, name: str = "mine.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return make


def refused(name: str, *parts: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset(name)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_names() -> None:
    assert load_preset("mini") is PRESETS["mini"]
    mini = load_preset("mini")
    assert {mini.lm, mini.image_text, mini.sentiment} == set(EMBEDDED)
    paper = load_preset("paper")
    assert (paper.lm, paper.image_text) == ("openai-community/gpt2-medium", "openai/clip-vit-base-patch32")
    assert (paper.fluency_weight, paper.image_weight) == (1.0, 22.0)
    assert (paper.prefix, paper.steps, paper.beams, paper.candidates) == ("An image of", 16, 4, 256)


def test_unknown_name_lists_those_there_are() -> None:
    refused("midi", "no preset 'midi'", "mini, paper", ".yaml")


def test_file_with_all_fields(write) -> None:  # type: ignore[no-untyped-def]
    path = write(
        "lm: gpt2\nimage_text: clip\nsentiment: bert\nsteps: 3\nlabels: {positive: POS, negative: NEG}\n"
    )
    assert load_preset(path) == Preset(**MODELS, steps=3, labels={"positive": "POS", "negative": "NEG"})
    assert load_preset(write("lm: gpt2\nimage_text: clip\nsentiment: bert\n", "b.yml")) == Preset(**MODELS)


def test_file_with_a_base_changes_only_what_it_names(write) -> None:  # type: ignore[no-untyped-def]
    path = write("base: paper\nbeams: 2\nimage_weight: 5\n")
    assert load_preset(path) == PRESETS["paper"].model_copy(update={"beams": 2, "image_weight": 5.0})
    assert PRESETS["paper"].beams == 4


def test_a_base_may_be_a_file_beside_it(write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write("base: mini\nsteps: 7\nbeams: 5\n", "parent.yaml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = load_preset(write("base: parent.yaml\nbeams: 6\n"))
    assert (found.steps, found.beams, found.lm) == (7, 6, "mini-lm")


def test_a_base_that_is_none(write) -> None:  # type: ignore[no-untyped-def]
    refused(write("base: midi\n"), "no preset 'midi'", "mini, paper")
    refused(write("base: gone.yaml\n"), "gone.yaml", "no such file")
    refused(write("base: mine.yaml\n"), "based on itself")
    write("base: mine.yaml\n", "other.yaml")
    refused(write("base: other.yaml\n"), "based on itself")
    refused(write("base: [1]\n"), "no preset")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("image_wieght", "image_weight"), ("beam", "beams"), ("Steps", "steps"), ("imagetext", "image_text")],
)
def test_a_wrong_key_names_the_nearest_right_one(wrong: str, right: str, write) -> None:  # type: ignore[no-untyped-def]
    refused(
        write(f"base: mini\n{wrong}: 3\n"), "mine.yaml", f"no field {wrong!r}", f"did you mean {right!r}?"
    )
    # Even where that leaves a field without a value.
    refused(write(f"{wrong}: 3\n"), f"did you mean {right!r}?")


def test_a_key_like_no_other_lists_them_all(write) -> None:  # type: ignore[no-untyped-def]
    refused(write("base: mini\nzzz: 3\n"), "no field 'zzz'", *Preset.model_fields)
    refused(write("base: mini\n7: 3\n"), "no field '7'")


@pytest.mark.parametrize(
    "line",
    ["steps: 0", "steps: many", "steps: 1.5", "beams: -1", "image_weight: .nan", "image_weight: .inf",
     "image_weight: 0", "image_weight: heavy", "lm: 3", "lm: ", "prefix: [a]", "labels: {positive: 1}",
     "candidates: null"],
)  # fmt: skip
def test_wrong_values_name_their_field(line: str, write) -> None:  # type: ignore[no-untyped-def]
    refused(write(f"base: mini\n{line}\n"), "mine.yaml", line.split(":")[0])


def test_missing_fields(write) -> None:  # type: ignore[no-untyped-def]
    refused(write("steps: 3\n"), "'lm' is missing", "base: mini")


def test_no_yaml(write) -> None:  # type: ignore[no-untyped-def]
    refused(write("lm: [gpt2\nsteps: 3"), "mine.yaml", "not valid YAML", "line 2")
    refused(write("lm: gpt2\n\tsteps: 3"), "not valid YAML", "line 2")
    refused(write(b"\xff\xfe\x00\x01"), "not valid YAML")
    refused(write("lm: \x01"), "not valid YAML")
    refused(write("!!python/object/apply:os.getcwd []"), "not valid YAML")


@pytest.mark.parametrize(
    ("content", "found"), [("", "NoneType"), ("- lm", "list"), ("gpt2", "str"), ("3", "int")]
)
def test_no_fields(content: str, found: str, write) -> None:  # type: ignore[no-untyped-def]
    refused(write(content), "expected fields", found)


def test_missing_file(tmp_path: Path) -> None:
    refused(str(tmp_path / "gone.yaml"), "gone.yaml", "no such file")
    (tmp_path / "folder.yaml").mkdir()
    refused(str(tmp_path / "folder.yaml"), "folder.yaml", "cannot be read")


def test_presets_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PRESETS["mini"].steps = 3  # type: ignore[misc]
