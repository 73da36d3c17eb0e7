"""Which settings a saved search may be resumed with: those that it would have come as far with."""

from __future__ import annotations

from typing import Any

from promptfuse._utils.resume import Difference, differences
from promptfuse.errors import ConfigError
from promptfuse.search.state import given

LIMITS = (("stopping",), ("method", "steps"))
"""Where settings are that say when a search ends, not how it goes."""


def require_resumable(state: dict[str, Any], config: dict[str, Any], objective: dict[str, Any]) -> None:
    """Make sure that a saved search is one that these settings would have led to.

    A search may be given other limits, such as more steps, where it would have come to the very same state
    with them: what it ends with is then what a search with the new limits, never stopped, ends with.

    Args:
        state: what ``Search.state_dict`` gave.
        config: ``Search.config`` of the search that is to resume.
        objective: ``Objective.describe`` of it.

    Raises:
        ConfigError: if a setting or a model differs; the message names it.
    """
    if "format" not in state:
        raise ConfigError(
            "the saved search is of an earlier version, which did not record all weights of its models, so "
            "so it is unknown whether these are the same; start again in another folder"
        )
    was, now = given(state["config"]), given(config)
    for found in differences(was, now):
        if not found.is_at(LIMITS):
            raise _refusal(found)
        if reason := _reason(found, state, was, now):
            raise ConfigError(
                f"the saved search has {found.name} {found.before!r}, which cannot become {found.now!r}: "
                f"{reason}; resume with the settings it was made with, or start again"
            )
    for found in differences(given(state["objective"]), given(objective)):
        if found.place[-1] == "model" and len(found.place) == 2:
            raise ConfigError(
                f"the saved search has another model in the term {found.place[0]} (identity {found.before}, "
                f"not {found.now}: weights, configuration, tokenizer or processor differ); resume with the "
                "model it was made with, or start again"
            )
        raise _refusal(Difference(("objective", *found.place), found.before, found.now))


def _refusal(found: Difference) -> ConfigError:
    return ConfigError(
        f"the saved search has {found.name} {found.before!r:.200}, not {found.now!r:.200}; "
        "resume with the settings it was made with, or start again"
    )


def _reason(found: Difference, state: dict[str, Any], was: dict[str, Any], now: dict[str, Any]) -> str:
    """Why a limit cannot be changed any more; empty if it can."""
    before, value = found.before, found.now
    stage = state["stage"]
    match found.place[-1]:
        case "steps":
            old, new = _steps(was), _steps(now)
            if len(old) != len(new) or old[:stage] != new[:stage]:
                return "methods of the chain have already ended by it"
            taken = state["stage_steps"]
            return f"{taken} steps are taken already" if new[stage] < taken else ""
        case "patience":
            if stage:
                return "methods of the chain may have already ended by it"
            return "" if value >= before else "it might have ended before"
        case "evaluations":
            made = state["exact_evaluations"]
            if before is not None and made >= before:
                return "the proposals of its last step were cut by it"
            return f"{made} are made already" if value is not None and value < made else ""
        case "seconds":
            return ""  # What is found by then depends on the machine anyway.
        case "value":
            best = min((item["value"] for item in state["finished"]), default=float("inf"))
            stricter = value is None or (before is not None and value <= before)
            return "" if stricter or best > value else "it would have ended before"
        case "early_stop":
            return "it might have ended before" if value else ""
    return "the search would have taken another path"


def _steps(config: dict[str, Any]) -> list[int]:
    """The most steps of each method."""
    method, most = config["method"], config["stopping"]["steps"]
    return list(method.get("steps") or [most] * len(method.get("methods", [method])))
