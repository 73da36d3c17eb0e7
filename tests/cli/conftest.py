"""A search's configuration that tests change."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFIG = """\
models:
  lm: {lm}
  tone: {{name: {tone}}}
terms:
  fluency: {{kind: Fluency, model: lm}}
  sentiment: {{kind: ClassProbability, model: tone, label: positive, weight: 1.5}}
method: {{kind: AutoDAN, candidates: 4}}
strategy: {{kind: BeamSearch, width: 2}}
constraints: {{round_trip: false}}
stopping: {{steps: 5, patience: 5}}
prefix: A brown
"""


@pytest.fixture
def config(checkpoint, tmp_path) -> Path:
    """A configuration of two tiny checkpoints."""
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(lm=checkpoint("gpt2"), tone=checkpoint("bert")))
    return path
