"""Several objectives at once: the texts that no other text beats in every term."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from promptfuse.search.hypothesis import Hypothesis


def pareto_front(seen: Iterable[Hypothesis], weights: Mapping[str, float]) -> list[Hypothesis]:
    """The texts that no other text beats in every term, best value first.

    A term with a negative weight counts the other way round.
    """
    signs = _signs(weights)
    # Sorted by the losses, a text can only be beaten by one that stands before it.
    kept: list[tuple[tuple[float, ...], Hypothesis]] = []
    for item in sorted({item.text: item for item in seen}.values(), key=lambda item: _losses(item, signs)):
        own = _losses(item, signs)
        if not any(_as_good(other, own) for other, _ in kept):
            kept.append((own, item))
    return sorted((item for _, item in kept), key=lambda item: item.value)


class Archive(Mapping[str, Hypothesis]):
    """The Pareto front of all complete texts seen, kept as they come: {text: hypothesis}.

    A search may see a million complete texts; only those that none beats are held. The best value is
    always among them.

    Args:
        weights: of the terms; only their signs matter.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.signs = _signs(weights)
        self.items_by_text: dict[str, Hypothesis] = {}

    def would_take(self, item: Hypothesis) -> bool:
        """Whether no text held is as good in every term."""
        own = _losses(item, self.signs)
        return not any(_as_good(_losses(other, self.signs), own) for other in self.values())

    def add(self, item: Hypothesis) -> None:
        """Take a text, and drop those that it beats."""
        if not self.would_take(item):
            return
        own = _losses(item, self.signs)
        held = self.items_by_text
        self.items_by_text = {
            text: other for text, other in held.items() if not _as_good(own, _losses(other, self.signs))
        }
        self.items_by_text[item.text] = item

    def restore(self, items: Iterable[Hypothesis]) -> None:
        """Hold these texts and no others; they are a front already."""
        self.items_by_text = {item.text: item for item in items}

    def best(self) -> Hypothesis | None:
        """The text of the lowest value, the oldest of several."""
        return min(self.values(), key=lambda item: item.value, default=None)

    def __getitem__(self, text: str) -> Hypothesis:
        return self.items_by_text[text]

    def __iter__(self) -> Iterator[str]:
        return iter(self.items_by_text)

    def __len__(self) -> int:
        return len(self.items_by_text)


def _signs(weights: Mapping[str, float]) -> dict[str, float]:
    return {name: 1.0 if weight > 0 else -1.0 for name, weight in weights.items()}


def _losses(item: Hypothesis, signs: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(sign * item.terms[name] for name, sign in signs.items())


def _as_good(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(first, second, strict=True))
