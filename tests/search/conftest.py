"""The tiny problem whose best text is known, made once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import promptfuse as pf
from promptfuse.testing import CHAINS, WORDS, KnownAnswer, make_models

__all__ = ["CHAINS", "FREE", "WORDS", "KnownAnswer"]

FREE = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False)


@pytest.fixture(scope="session")
def lookup_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Folders of the language model, of one with a trap, and of the classifier."""
    root = tmp_path_factory.mktemp("lookup")
    make_models(root / "plain")
    make_models(root / "trapped", trap=True)
    return root / "plain" / "lm", root / "trapped" / "lm", root / "plain" / "classifier"


@pytest.fixture(scope="session")
def make_puzzle(lookup_models: tuple[Path, ...]) -> Callable[..., KnownAnswer]:
    """The puzzle, plain or with a trap: the other chain begins with a likelier word."""
    lm, trap, classifier = (pf.load_model(folder) for folder in lookup_models)

    def make(trapped: bool = False) -> KnownAnswer:
        fluency = pf.Fluency(trap if trapped else lm)
        return KnownAnswer(pf.Objective(fluency, pf.ClassProbability(classifier, "good", 1.0)))

    return make


@pytest.fixture(scope="session")
def puzzle(make_puzzle: Callable[..., KnownAnswer]) -> KnownAnswer:
    return make_puzzle()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Adapters that tests fit stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTFUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
