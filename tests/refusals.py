"""What the command line says to bad input."""

from __future__ import annotations


def refused(outcome: tuple[int, str, str], *words: object) -> None:
    """One line that has all these words, exit code 2, and nothing else."""
    code, out, err = outcome
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("promptfuse: ")
    for word in words:
        assert str(word) in err, err
