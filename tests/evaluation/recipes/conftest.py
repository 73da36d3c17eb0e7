"""What the tests of recipes share: a few photos, and describers with their models loaded once."""

from pathlib import Path
from typing import Any

import pytest

from promptfuse.evaluation.recipes import Describer, load_recipe

PHOTOS = sorted((Path(__file__).parents[3] / "examples" / "photos").glob("*.jpg"))[:5]


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    return PHOTOS


_MODELS: dict[str, Any] = {}


def quick(name: str, **changes: Any) -> Describer:
    """A recipe's describer, whose models are those of every other one."""
    describer = load_recipe(name, **changes).build()
    describer.captioner._loaded = _MODELS
    describer.load()
    return describer
