"""A run folder is resumed only with the settings that it began with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from promptfuse.errors import ConfigError

Place = tuple[str, ...]
"""Where a setting is: its keys from the outermost one on."""


class Difference(NamedTuple):
    """A setting with two values.

    Attributes:
        place: where it is.
        before: its value in the folder; None if it has none.
        now: its value in the settings that it would be resumed with; None if it has none.
    """

    place: Place
    before: Any
    now: Any

    @property
    def name(self) -> str:
        """The place as messages write it."""
        return ".".join(self.place)

    def is_at(self, places: Iterable[Place]) -> bool:
        """Whether it is one of these places, or below one; ``*`` in a place stands for any one key."""
        return any(
            len(place) <= len(self.place)
            and all(part in ("*", own) for part, own in zip(place, self.place, strict=False))
            for place in places
        )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[Difference]:
    """The settings that differ; one that is None counts as one that is not there."""
    was, given = dict(_leaves(before)), dict(_leaves(now))
    places = dict.fromkeys([*given, *was])
    return [
        Difference(place, was.get(place), given.get(place))
        for place in places
        if was.get(place) != given.get(place)
    ]


def check_resumable(
    folder: Path | str, before: dict[str, Any], now: dict[str, Any], free: Sequence[Place] = ()
) -> None:
    """Make sure that a run is resumed with the settings that it began with.

    Args:
        folder: the run folder, for the message.
        before: nested settings that the folder holds.
        now: the settings that it would be resumed with.
        free: whole places of settings that may differ; a name alone could also be a term's or a model's.

    Raises:
        ConfigError: if another setting differs; the message names the first.
    """
    for found in differences(before, now):
        if not found.is_at(free):
            raise ConfigError(
                f"run folder {folder}: it contains a run with {found.name} {found.before!r}, "
                f"not {found.now!r}; give another folder, or the settings of that run"
            )


def _leaves(values: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """The values of nested settings by their places; lists count as values, but for lists of settings."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _leaves(value, (*place, str(name)))
    elif isinstance(values, list | tuple) and values and all(isinstance(one, dict) for one in values):
        for number, value in enumerate(values):
            yield from _leaves(value, (*place, str(number)))
    else:
        yield place, list(values) if isinstance(values, tuple) else values
