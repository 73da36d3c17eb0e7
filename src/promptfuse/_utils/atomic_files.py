"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from promptfuse.errors import ConfigError


def atomic_write(path: Path, text: str) -> None:
    """Write UTF-8 text to a temporary name beside the file, then rename it.

    Raises:
        OSError: if it cannot be written; then the file is as it was.
    """
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, prefix=path.name, suffix=".part", delete=False
    ) as stream:
        part = Path(stream.name)
        try:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


_OWN = re.compile(
    rb"<!doctype html>(?=.*<(meta name=\"generator\" content=\"|footer>)promptfuse\b)"  # A page.
    rb"|run,metric,title,"  # Tables, as CSV, Markdown and LaTeX.
    rb"|(% )?[\d,]+ photos\. 95% bootstrap "
    rb"|(\x89PNG|%PDF-|<\?xml)(?=.*[Cc]reator.{0,80}promptfuse)"  # A plot.
    # Values of captions, which begin with a metric's: neither captions alone nor a run's lines.
    rb'|\{"id": "([^"\\\n]|\\.)*", "(bleu_\d|rouge_l|meteor|cider_d|spice|(ref)?clipscore|perplexity_\w+'
    rb'|sentiment_accuracy|judged(_([^"\\\n]|\\.)*)?|distinct_\d|self_cider|pairwise_cider|vocabulary|unique'
    rb'|words|seconds|exact_evaluations)": (null|-?\d)',
    re.DOTALL,
)
"""How files of the commands begin."""


def is_own(path: Path) -> bool:
    """Whether a file is empty, or looks as if a command of promptfuse had written it.

    Raises:
        OSError: if it cannot be read.
    """
    found = path.read_bytes()
    return not found.strip() or _OWN.match(found) is not None


def check_target(path: Path, inputs: Iterable[str | Path] = (), suffixes: Sequence[str] = ()) -> None:
    """Check that a file can be written, before any work is done for it.

    Only files that promptfuse wrote are replaced.

    Args:
        path: the file.
        inputs: what is read; it must not be replaced.
        suffixes: what the name may end in; anything if none is given.

    Raises:
        ConfigError: if it cannot be written, or must not.
    """
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is not a regular file; give the name of a file")
    if not path.resolve().parent.is_dir():
        raise ConfigError(f"{path}: its folder does not exist; create it first")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path}: the name must end in {suffixes[0]}")
    if path.resolve() in [Path(given).resolve() for given in inputs]:
        raise ConfigError(f"{path}: is one of the input files; give another name")
    if path.exists() and not is_own(path):
        raise ConfigError(
            f"{path}: exists and was not written by promptfuse; give another name, or move it away"
        )
