"""What tests of several folders share: tiny checkpoints, and the command line called in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from promptfuse.cli import main as cli
from promptfuse.models import Model, load_model
from tests.checkpoints import BUILDERS, MORE_BUILDERS, excite


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and advice of transformers while a test prepares something."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_progress_bar()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny models are slower on more threads, and sums stay the same from machine to machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of checkpoints that are gone tomorrow is not put into the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTFUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with the named tiny checkpoint; tests that damage it copy it first."""
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def build(name: str) -> Path:
        torch.manual_seed([*sorted(BUILDERS), *sorted(MORE_BUILDERS)].index(name))
        folder = root / name
        with quiet():
            tokenizer, module, processor = {**BUILDERS, **MORE_BUILDERS}[name]()
            excite(module).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            if processor is not None:
                processor.save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def model(checkpoint: Callable[[str], Path]) -> Callable[..., Any]:
    """The named tiny checkpoint, loaded once for each type of its parameters."""

    @cache
    def load(name: str, dtype: torch.dtype = torch.float32) -> Model:
        return load_model(checkpoint(name), dtype=dtype)

    return load


@pytest.fixture
def promptfuse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Call the command line; what it exits with, prints and complains of."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["promptfuse", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return run


@contextmanager
def lexicon_of(count: int) -> Iterator[None]:
    """A lexicon of the most frequent words, capitalised forms among them, which are read in a moment."""
    from promptfuse.adapters.words import english_words
    from promptfuse.objectives import lexicon

    few = dict(sorted(english_words().items(), key=lambda item: -item[1])[:count])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexicon, "english_words", lambda: few)
        lexicon.lexicon_words.cache_clear()
        yield
    lexicon.lexicon_words.cache_clear()


@pytest.fixture
def few_words() -> Iterator[None]:
    """A lexicon that tiny models of letters spell in a moment."""
    with lexicon_of(500):
        yield
