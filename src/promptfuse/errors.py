"""User-correctable errors.

Each message is one line that names the bad input and the remedy. The command line prints it without a
traceback and exits with code 2.
"""

from __future__ import annotations


class PromptfuseError(Exception):
    """Base class of the errors that bad input causes."""


class ImageError(PromptfuseError):
    """A photo cannot be read, or is refused (too small, too large)."""


class ModelError(PromptfuseError):
    """A model cannot be found, loaded, or used in the role it was given."""


class ConfigError(PromptfuseError):
    """A setting has an unknown name or a value that is not valid."""


class TextError(PromptfuseError):
    """A model cannot read a text: it is empty, or longer than the model's positions."""


class AdapterError(PromptfuseError):
    """An adapter's files are damaged, or belong to other models."""


class PromptfuseWarning(UserWarning):
    """Something behaves differently from what one would expect; the message is one line."""
