"""Errors that a user can mend.

Each message is one line that names the bad input and the remedy. The command line prints it without a
traceback and exits with code 2.
"""

from __future__ import annotations


class PromptfuseError(Exception):
    """Base of every error that is the input's fault and not the program's."""


class ImageError(PromptfuseError):
    """A photo that cannot be read or must not be read."""


class ModelError(PromptfuseError):
    """A model that cannot be found, loaded or used for the role asked of it."""


class ConfigError(PromptfuseError):
    """A setting with a wrong name or value."""


class TextError(PromptfuseError):
    """A text that a model cannot take: empty, or longer than its positions."""


class AdapterError(PromptfuseError):
    """An adapter file that is damaged or does not belong to the models at hand."""


class PromptfuseWarning(UserWarning):
    """What goes on otherwise than one might expect, in one line; the command line prints it so."""
