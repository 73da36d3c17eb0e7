from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from promptfuse.models import Model, SentenceEncoder, load_model
from promptfuse.objectives import Term

TEXTS = (
    "A brown dog runs.",
    "dog",
    "Two children, playing",
    "Café 日本",
    "a dog",
    "A dog",
    "the best film",
)


@pytest.fixture(scope="session")
def encoder(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[torch.dtype], SentenceEncoder]:
    """The tiny classifier's encoder as a sentence encoder."""
    folder = Path(shutil.copytree(checkpoint("bert"), tmp_path_factory.mktemp("encoder") / "bert"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))

    def load(dtype: torch.dtype = torch.float32) -> SentenceEncoder:
        found = load_model(folder, dtype=dtype)
        assert isinstance(found, SentenceEncoder)
        return found

    return load


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Three photos that differ."""
    return [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))
        for seed in range(3)
    ]


@pytest.fixture(scope="session")
def score_is_exact() -> Callable[[Term], None]:
    """Check that a term's fast path gives the exact values, whatever the batches and the order."""

    def check(term: Term) -> None:
        exact = [term.exact(text) for text in TEXTS]
        assert len({round(value, 4) for value in exact}) > 3
        for batch_size in (1, 2, 3, 256, None):
            assert term.score(TEXTS, batch_size).tolist() == pytest.approx(exact, abs=1e-5)
        assert term.score(TEXTS[::-1]).tolist() == pytest.approx(exact[::-1], abs=1e-5)
        assert term.score([]).shape == (0,)
        parents = [text for text in TEXTS for _ in range(2)]
        grown = [f"{text}{word}" for text in TEXTS for word in (" in", " dog")]
        exact = [term.exact(text) for text in grown]
        for batch_size in (1, 3, None):
            assert term.score(grown, batch_size, parents).tolist() == pytest.approx(exact, abs=1e-5)

    return check


@pytest.fixture(scope="session")
def slope_is_right() -> Callable[..., None]:
    """Check a term's gradients at the placeholders against finite differences; its model is in float64.

    A larger step and tolerance are for architectures that norm in float32 whatever their type.
    """

    def check(term: Term, step: float = 1e-5, rtol: float = 1e-4) -> None:
        table = term.model.embedding_table
        assert table.dtype == torch.float64
        beams = ("A brown dog", "dog", "Two children are")
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2, len(beams), table.shape[1], generator=generator, dtype=table.dtype)
        probe, way = table.mean(0) + 0.3 * noise[0], noise[1]
        found = term.slot_gradient(beams, probe, 3)
        ahead = term.slot_gradient(beams, probe + step * way, 3).loss
        behind = term.slot_gradient(beams, probe - step * way, 3).loss
        slope = (ahead - behind) / (2 * step)
        # Moving the probe moves every position of the slot at once.
        estimate = torch.einsum("bmjd,bd->bm", found.gradient, way)
        # A saturated softmax is flat, here and there; differences are known to about 1e-9 and no better.
        assert (slope.abs() > 1e-5).double().mean() > 0.5
        torch.testing.assert_close(estimate, slope, rtol=rtol, atol=1e-4 * rtol)
        for number, text in enumerate(beams):
            alone = term.slot_gradient([text], probe[number : number + 1], 3)
            torch.testing.assert_close(alone.gradient[0], found.gradient[number])
            torch.testing.assert_close(alone.loss[0], found.loss[number])

    return check


@pytest.fixture(scope="session")
def slot_is_the_next_word() -> Callable[[Term], None]:
    """Check that with a word's own embedding for a probe, the loss is that of the text with the word."""

    def check(term: Term) -> None:
        model: Model = term.model
        (row,), ((start, stop),) = model.token_rows([f"{term.prefix}A brown"])
        for word in ("dog", "grass", "water", "the", "in", "is", "a", "film", "girl"):
            (longer,), ((_, end),) = model.token_rows([f"{term.prefix}A brown {word}"])
            if end == stop + 1 and longer[start:stop] == row[start:stop]:
                break
        else:
            raise AssertionError("no word of one token")
        found = term.slot_gradient(["A brown"], model.embedding_table[longer[stop : stop + 1]], 2)
        assert float(found.loss[0, 0]) == pytest.approx(term.exact(f"A brown {word}"), abs=1e-5)

    return check


@pytest.fixture(scope="session")
def same_search() -> Callable[..., bool]:
    """Whether terms are told apart by what they are made of."""

    def check(*terms: Any) -> bool:
        found = [json.dumps(term.describe(), sort_keys=True) for term in terms]
        return len(set(found)) == 1

    return check
