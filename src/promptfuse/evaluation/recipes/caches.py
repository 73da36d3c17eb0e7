"""Whether a language model has keys and values of every token that recipes can take hold of."""

from __future__ import annotations

import inspect
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import Cache, DynamicCache

from promptfuse.models import CausalLM
from promptfuse.models.checkpoint import locate
from promptfuse.models.from_files import quiet
from promptfuse.models.precision import at_least_float32
from promptfuse.models.trial import UNREADABLE, trial_row

Layers = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each layer, (rows, heads, length, width)."""

_KEEPS: WeakKeyDictionary[CausalLM, tuple[int, bool]] = WeakKeyDictionary()
"""What trials have found, and how often the model had been changed until then."""


def layers_of(cache: Any, length: int) -> Layers:
    """Keys and values out of a cache of ``transformers``.

    Args:
        cache: what a model gives back.
        length: how many tokens there must be in it.

    Raises:
        ValueError: if it is something else than keys and values of every token in every layer.
    """
    if not isinstance(cache, Cache) or not cache.layers:
        raise ValueError("no cache of keys and values")
    found: list[tuple[Tensor, Tensor]] = []
    for layer in cache.layers:
        sides = [getattr(layer, name, None) for name in ("keys", "values")]
        kept = [side for side in sides if isinstance(side, Tensor) and side.dim() == 4]
        if len(kept) < 2 or any(side.shape[2] != length for side in kept):
            raise ValueError("no keys and values of every token in every layer")
        found.append((kept[0], kept[1]))
    return tuple(found)


def read_after(module: nn.Module, ids: Tensor, past: Layers) -> tuple[Layers, Any]:
    """One forward pass after keys and values: those of all tokens, and the module's output.

    Args:
        module: the language model.
        ids: (rows, new).
        past: keys and values of the tokens before; empty for none.

    Raises:
        ValueError: if the module has no such cache, or no single hidden state of each token.
    """
    cache = DynamicCache(past) if past else DynamicCache()
    length = (past[0][0].shape[2] if past else 0) + ids.shape[1]
    found = module(
        input_ids=ids,
        # Nothing is masked, which cannot be seen where there are no numbers.
        attention_mask=None if ids.is_meta else torch.ones(len(ids), length, device=ids.device).long(),
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=True,
    )
    if found.hidden_states[-1].shape[:-1] != ids.shape:
        # Gemma 3n carries several states of each token from layer to layer.
        raise ValueError("no single hidden state of each token")
    return layers_of(found.past_key_values, length), found


def keeps_cache(lm: CausalLM) -> bool:
    """Whether reading after keys and values gives what reading whole rows does, found by a trial."""
    lm = lm.plain
    if lm not in _KEEPS or _KEEPS[lm][0] != lm.generation:
        _KEEPS[lm] = lm.generation, _agrees(lm)
    return _KEEPS[lm][1]


@torch.no_grad()
def _agrees(lm: CausalLM) -> bool:
    row, _ = trial_row(lm, min(24, lm.max_length, lm.verdict.border))
    if len(row) < 3 or not lm.verdict.batched:
        return False
    ids = torch.tensor([row, [row[0], *reversed(row[1:])]], device=lm.device)
    try:
        whole, found = read_after(lm.module, ids, ())
        before = tuple((keys[:, :, :-2], values[:, :, :-2]) for keys, values in whole)
        some, _ = read_after(lm.module, ids[:, -2:-1], before)
        _, after = read_after(lm.module, ids[:, -1:], some)
        plain = lm.module(input_ids=ids).logits
    except UNREADABLE:
        return False
    expected = at_least_float32(plain[:, -1]).log_softmax(-1)
    tolerance = 0.1 if torch.finfo(plain.dtype).eps > 1e-4 else 1e-3
    answers = [at_least_float32(one.logits[:, -1]).log_softmax(-1) for one in (found, after)]
    return all(torch.allclose(answer, expected, rtol=0, atol=tolerance) for answer in answers)


def config_keeps_cache(name: str) -> bool:
    """Whether a language model has keys and values in every layer, told from its configuration alone.

    The model is made without weights, and read without numbers.

    Args:
        name: as ``load_model`` takes it.
    """
    with quiet(downloads=False):
        config = AutoConfig.from_pretrained(locate(name).weights)
        return module_keeps_cache(config)


@torch.no_grad()
def module_keeps_cache(config: Any) -> bool:
    """Whether modules of a configuration keep keys and values, found by a trial."""
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.zeros(1, 2, dtype=torch.long, device="meta")
    try:
        with torch.device("meta"):
            read_after(module, ids, ())
        return True
    except RuntimeError:  # It cannot be told without numbers; the trial at loading tells.
        stateful = getattr(module, "_is_stateful", False)
        return not stateful and "past_key_values" in inspect.signature(module.forward).parameters
    except Exception:  # Of which many kinds say that a model takes no such cache.
        return False
