"""What a search looks at before it begins: that its models can read what every text is to have."""

from __future__ import annotations

from promptfuse.errors import ConfigError, TextError
from promptfuse.models import CausalLM
from promptfuse.search.constraints import Constraints
from promptfuse.search.readback import RoundTrip


def check_required(constraints: Constraints, primary: CausalLM, round_trip: RoundTrip) -> None:
    """Refuse required phrases that no text can have, for lack of tokens.

    Raises:
        ConfigError: if a phrase is longer than ``max_tokens``, or a model reads it as something else.
    """
    for phrase in constraints.required:
        # Words are compared without their case.
        spelled = list(dict.fromkeys([phrase, phrase.lower(), phrase.capitalize()]))
        fewest, most = min(map(len, primary.plain_ids(spelled))), constraints.max_tokens
        if most is not None and fewest > most:
            raise ConfigError(f"required: {phrase!r} has {fewest} tokens, max_tokens is {most}; raise it")
        if not constraints.round_trip:
            continue
        reasons = [round_trip.refusal(one) for one in spelled]
        if all(reason is not None for reason in reasons):
            raise ConfigError(
                f"required: {phrase!r} cannot be read back by every model, since {reasons[0]}; remove it "
                "or set round_trip to false"
            )


def check_beginning(constraints: Constraints, text: str, round_trip: RoundTrip) -> None:
    """Refuse a text to begin with that a model cannot read, since no text that begins with it would be kept.

    Raises:
        TextError: naming the model, and what it reads.
    """
    if not text.strip() or not constraints.round_trip:
        return
    if (reason := round_trip.refusal(text)) is not None:
        raise TextError(
            f"initial text {text!r}: {reason}; use characters that it knows, or set the constraint "
            "round_trip to false"
        )
