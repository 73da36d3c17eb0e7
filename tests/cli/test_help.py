"""What ``--help`` says, at 80 columns."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from promptfuse.cli.main import app
from promptfuse.evaluation.runs import DatasetRunConfig
from promptfuse.models import PRESETS


def commands(group: Any, *path: str) -> dict[tuple[str, ...], Any]:
    """All commands by the words that call them."""
    found = {path: group}
    for name, command in getattr(group, "commands", {}).items():
        found |= commands(command, *path, name)
    return found


COMMANDS = commands(typer.main.get_command(app))


@pytest.fixture
def shown(promptfuse, monkeypatch):
    """The help of a command."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")

    def show(*path: str) -> str:
        code, out, err = promptfuse(*path, "--help")
        assert (code, err) == (0, "")
        return out

    return show


def entries(text: str) -> dict[str, str]:
    """What is said of each option, on one line."""
    part = text.partition("\nOptions:\n")[2]
    found = re.split(r"\n(?=  --)", "\n" + part.partition("\n\n")[0].removeprefix("\n"))
    rows = [" ".join(row.split()) for row in found if row.strip()]
    return {row.split()[0].rstrip(","): row for row in rows}


def test_caption_comes_first(shown):
    names = re.findall(r"^  (\w+)  ", shown().partition("Commands:\n")[2], re.M)
    assert names == [
        "caption",
        "invert",
        "optimize",
        "run",
        "score",
        "report",
        "models",
        "datasets",
        "adapter",
    ]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_line_fits_and_no_summary_is_cut(shown, path):
    text = shown(*path)
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.partition("Commands:\n")[2]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_with_a_value_says_its_default_and_what_the_value_is(shown, path):
    said = entries(shown(*path))
    options = [one for one in COMMANDS[path].params if one.opts[0].startswith("--")]
    assert len(said) == len(options) + 1  # And --help itself.
    for option in options:
        row = said[option.opts[0]]
        if not option.is_flag:
            assert re.search(r"\[default: .+\]$", row), row
            # A name for the value rather than a type of Python's.
            assert "<" not in row, row


def test_defaults_are_those_in_use(shown):
    mini, paper = PRESETS["mini"], PRESETS["paper"]
    said = entries(shown("caption"))
    assert f"({mini.steps} with mini, {paper.steps} with paper)" in said["--steps"]
    for name in ("beams", "candidates"):
        numbers = (getattr(preset, name) for preset in (mini, paper))
        assert "(the effort's: {} with mini, {} with paper)".format(*numbers) in said[f"--{name}"]
    assert "(default)" in said["--effort"]
    assert mini.prefix == ""
    assert f"(none with mini, '{paper.prefix}' with paper)" in said["--prefix"]

    run = DatasetRunConfig(data="photos")
    said = entries(shown("run"))
    assert f"or {run.in_flight})" in said["--in-flight"]
    assert f"or {run.engine.workers})" in said["--workers"]
    assert f"or {run.engine.kind})" in said["--engine"]
    assert run.limit is None

    from promptfuse.config import SearchConfig

    said = entries(shown("optimize"))
    fields = SearchConfig.model_fields
    assert f"or {fields['seed'].default})" in said["--seed"]
    assert f"or {fields['device'].default})" in said["--device"]
    steps = fields["stopping"].get_default(call_default_factory=True).steps
    assert f"or {steps})" in said["--steps"]
