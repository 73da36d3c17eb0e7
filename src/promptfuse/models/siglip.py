"""The spelling that SigLIP was trained on: lower case, in its first version without punctuation.

Transformers leaves it to the tokenizer's class, and not every class, nor every tokenizer.json, does so.

Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (2023), and Tschannen et al., "SigLIP 2"
(2025), as their code big_vision prepares texts.
"""

from __future__ import annotations

import string

from tokenizers import Regex, normalizers
from transformers import PreTrainedTokenizerFast

_LOWER = ("Siglip2Tokenizer", "GemmaTokenizer")
"""Tokenizers of SigLIP 2, which reads lower case."""

_CANONICAL = ("SiglipTokenizer",)
"""Those of SigLIP, which reads lower case without ASCII punctuation and without blanks beyond one."""


def spell_as_trained(tokenizer: PreTrainedTokenizerFast, kind: str) -> None:
    """Have a SigLIP tokenizer spell texts as its model was trained on them, in place.

    A tokenizer that does so already stays as it is, and so does one of another kind.

    Args:
        tokenizer: the fast tokenizer.
        kind: the class that its files name.
    """
    settings = tokenizer.init_kwargs
    kinds = {name.removesuffix("Fast") for name in (kind, type(tokenizer).__name__)}
    steps: list[normalizers.Normalizer] = []
    if kinds.intersection(_CANONICAL):
        steps = [normalizers.Lowercase()] if settings.get("do_lower_case", True) else []
        steps.append(normalizers.Replace(Regex(f"[{_escaped(string.punctuation)}]"), ""))
        steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    elif kinds.intersection(_LOWER) or settings.get("do_lower_case"):
        steps = [normalizers.Lowercase()]
    backend = tokenizer.backend_tokenizer
    wanted = normalizers.Sequence([*steps, *([backend.normalizer] if backend.normalizer else [])])
    if any(wanted.normalize_str(probe) != _now(backend, probe) for probe in ("A, B!", " a  b ")):
        backend.normalizer = wanted


def _now(backend: object, text: str) -> str:
    normalizer = getattr(backend, "normalizer", None)
    return text if normalizer is None else str(normalizer.normalize_str(text))


def _escaped(letters: str) -> str:
    return "".join(f"\\{letter}" for letter in letters)
