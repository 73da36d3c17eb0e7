"""Parts of error messages."""

from __future__ import annotations


def one_line(error: BaseException, length: int = 200) -> str:
    """What an exception says, in one line; its kind where it says nothing."""
    return " ".join((str(error) or type(error).__name__).split())[:length]
