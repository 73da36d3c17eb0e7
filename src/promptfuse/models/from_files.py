"""What reads checkpoints with transformers: quietly, with errors of one line, and nothing left random."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from huggingface_hub.utils.tqdm import enable_progress_bars
from transformers import AutoTokenizer

from promptfuse.errors import ModelError, PromptfuseError
from promptfuse.models.peft_files import is_change


def load_tokenizer(source: str, name: str, options: dict[str, Any]) -> Any:
    """The checkpoint's tokenizer; from tokenizer.json where transformers prefers a slow one (SigLIP's)."""
    tokenizer, problem = None, None
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except ImportError:  # The slow one needs packages that the fast one does not.
        pass
    except ValueError as error:  # Or, where they are installed, a file that the fast one does not.
        problem = error
    if tokenizer is not None and tokenizer.is_fast:
        return tokenizer
    try:
        transformers.utils.cached_file(source, "tokenizer.json")
    except OSError:
        if problem is not None:
            raise problem from None
        raise ModelError(
            f"{name}: the tokenizer has no fast version, which is needed for the spans of tokens; "
            "convert it to a tokenizer.json"
        ) from None
    return transformers.PreTrainedTokenizerFast.from_pretrained(source)


def load_module(role: Any, source: str, name: str, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    """The model with all its parameters from the files; none may be left at random values."""
    # With peft installed, transformers would put an adapter beside the weights into the module, unmerged.
    elsewhere = {"subfolder": "no-adapter"}
    module, info = role.from_pretrained(
        source,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        adapter_kwargs=elsewhere,
        **options,
    )
    if foreign := sorted(key for key in info["unexpected_keys"] if is_change(key)):
        raise ModelError(
            f"{name}: the weights hold {len(foreign)} parts of unmerged changes (the first is "
            f"{foreign[0]}); merge them and save the whole model, or save them by PEFT as an adapter"
        )
    if wrong := sorted(info["mismatched_keys"]):
        key, found, expected = wrong[0]
        raise ModelError(
            f"{name}: {key} has the shape {tuple(found)}, config.json asks for {tuple(expected)}; "
            "use the config.json that belongs to the weights"
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{name}: the files lack {len(missing)} parameters of {type(module).__name__} "
            f"(the first is {missing[0]}); use a checkpoint that was trained for this role"
        )
    return module


@contextmanager
def quiet(downloads: bool) -> Iterator[None]:
    """Keep loaders from writing progress and advice into the caller's terminal.

    Downloads take minutes, so their progress is shown, on a terminal.
    """
    hub = logging.getLogger("huggingface_hub")
    before, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    hub_before = hub.level
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if downloads and bars and sys.stderr.isatty():
        enable_progress_bars()  # transformers switches them off with its own
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
        hub.setLevel(hub_before)
        if bars:
            transformers.logging.enable_progress_bar()


@contextmanager
def clear_errors(name: str, part: str) -> Iterator[None]:
    """Turn what the loaders raise about a part of the model into one line."""
    try:
        yield
    except PromptfuseError:
        raise
    except Exception as error:  # The tokenizers library raises bare exceptions, broken JSON whatever follows.
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        reason = reason if len(reason) <= 160 else reason.split(". ")[0][:160]
        raise ModelError(
            f"{name}: the {part} cannot be loaded ({reason}); check the id or the folder's files"
        ) from error
