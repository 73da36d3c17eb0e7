"""Models that pip installs: tests of them are skipped, with the command, where they are absent."""

from __future__ import annotations

from typing import Any

import pytest

from promptfuse.models.packaged import PACKAGED, is_installed


def needs(*names: str) -> Any:
    """The names as a parameter of a test that is marked ``real``."""
    absent = [name for name in names if not is_installed(name)]
    remedy = f"{', '.join(absent)}: {' && '.join(PACKAGED[name].install for name in absent)}"
    return pytest.param(*names, marks=[pytest.mark.real, pytest.mark.skipif(bool(absent), reason=remedy)])
