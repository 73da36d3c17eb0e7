"""``promptfuse models``: list presets, their models and where those are."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def list_models(
    presets: Annotated[
        list[str] | None,
        typer.Argument(metavar="PRESET", help="Presets, or .yaml files.", show_default="all presets"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List the presets, their models and where those are.

    For a language model, also the tokens that it reads before every text.
    """
    from promptfuse.models import PRESETS, load_preset
    from promptfuse.models.info import place_of, start_of
    from promptfuse.tasks.caption import ROLES

    for name in presets or PRESETS:
        preset = load_preset(name)
        if not as_json:
            typer.echo(
                f"{name}: {preset.steps} steps, {preset.beams} beams, {preset.candidates} candidates; "
                f"weights: fluency {_shown(preset.fluency_weight)}, image {_shown(preset.image_weight)}, "
                f"sentiment {_shown(preset.sentiment_weight)}"
            )
        for role in ROLES:
            model = getattr(preset, role)
            if model is None:
                continue
            state, where = place_of(model)
            start = start_of(model, preset.lm_start or "auto") if role == "lm" else None
            if as_json:
                row = {"preset": name, "role": role, "model": model, "where": where, "state": state}
                typer.echo(json.dumps(row | ({"start": start} if role == "lm" else {})))
            else:
                shown = "" if start is None else f"  texts begin with: {json.dumps(start)}"
                typer.echo(f"  {role:<11} {model:<52} {state:<11} {where}{shown}")


def _shown(weight: float | str) -> str:
    return weight if isinstance(weight, str) else f"{weight:g}"
