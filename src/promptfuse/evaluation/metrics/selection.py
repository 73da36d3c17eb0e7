"""Which of the metrics were asked for."""

from __future__ import annotations

from collections.abc import Sequence

from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.registry import JUDGED, METRICS


def choose(names: Sequence[str] | None) -> dict[str, set[str]]:
    """Columns that were asked for, by metric, in the order of ``METRICS``; all for None.

    Raises:
        ConfigError: if a name is not known, or there is none.
    """
    if names is None:
        return {group: set(columns) for group, columns in METRICS.items()}
    if not names:
        raise ConfigError(f"no metric given; choose from: {', '.join(METRICS)}")
    known = [*METRICS, *(column for columns in METRICS.values() for column in columns)]
    chosen: dict[str, set[str]] = {group: set() for group in METRICS}
    for name in names:
        if name.startswith(f"{JUDGED}_"):
            chosen[JUDGED].add(name)  # Which labels there are is known when the judge is.
            continue
        if name not in known:
            raise ConfigError(f"no metric is called {name!r}; {nearest(name, list(dict.fromkeys(known)))}")
        for group, columns in METRICS.items():
            # CLIPScore is a metric and one of its columns; its name stands for the metric.
            chosen[group] |= set(columns) if name == group else {name} & set(columns)
    return {group: columns for group, columns in chosen.items() if columns}


def is_chosen(name: str, columns: set[str], group: str) -> bool:
    """Whether a column of a metric was asked for.

    Args:
        name: of the column.
        columns: those of the metric that were asked for, as ``choose`` gives them.
        group: the metric's name.
    """
    # All labels, and the line that says why there are none.
    return name in columns or (group == JUDGED and JUDGED in {name, *columns})
