"""Terms for one text that is to work with several prompts and models."""

from __future__ import annotations

from collections.abc import Sequence

from promptfuse.errors import ConfigError
from promptfuse.models import CausalLM
from promptfuse.objectives.target import TargetContinuation
from promptfuse.objectives.target_losses import TargetLossName
from promptfuse.text.borders import needs_blank


def target_terms(
    models: CausalLM | Sequence[CausalLM],
    pairs: Sequence[tuple[str, str]],
    weight: float = 1.0,
    *,
    loss: TargetLossName = "nll",
    alpha: float = 1.0,
    margin: float = 0.001,
) -> list[TargetContinuation]:
    """Terms that want one text to make every model say, after each prompt, that prompt's target.

        objective = pf.Objective(pf.target_terms([lm, other], [("Sing.", "La la"), ("Count.", "One, two")]))

    A universal text for several models (Zou et al., 2023, arXiv 2307.15043, section 2.3), whose tokenizers
    may differ. The terms weigh alike and add up to ``weight`` times the mean of their losses; all prompts
    count from the first step on, where the paper adds one after the other.

    Args:
        models: causal language models; with ``start="chat"`` prompt and text are the user's turn.
        pairs: prompts, which stand before the text, and what is wanted after it. An empty prompt is none.
        weight: the sum of the terms' weights.
        loss: see ``TargetContinuation``.
        alpha: see ``TargetContinuation``.
        margin: see ``TargetContinuation``.

    Returns:
        A term for each model and pair, models first.

    Raises:
        ConfigError: if there are no models or no pairs.
        TextError: if a target is empty.
    """
    listed = [models] if isinstance(models, CausalLM) else list(models)
    if not listed or not pairs:
        raise ConfigError(f"{'pairs' if listed else 'models'}: there are none; give at least one")
    each = weight / (len(listed) * len(pairs))
    return [
        TargetContinuation(
            model,
            target,
            each,
            prefix=f"{prompt}{' ' if prompt and needs_blank(prompt) else ''}",
            loss=loss,
            alpha=alpha,
            margin=margin,
        )
        for model in listed
        for prompt, target in pairs
    ]
