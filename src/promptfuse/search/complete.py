"""The texts that a search may return: complete ones, and what stands in for them while there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from promptfuse.search.constraints import Constraints
from promptfuse.search.hypothesis import Hypothesis
from promptfuse.search.pareto import Archive
from promptfuse.search.sentences import Ending, sentence_ending


class CompleteTexts:
    """Keeps the complete texts that no other one beats in every term.

    Args:
        constraints: what a complete text must have besides its end.
        weights: of the terms.
        keep: whether every model reads a text back.
        sentences: whether a text has to come to an end before it is complete.

    Attributes:
        front: the complete texts.
        fallback: the text to return if the search ended without a complete one.
        incomplete: the best text seen that might be returned but had not come to an end.
    """

    def __init__(
        self,
        constraints: Constraints,
        weights: Mapping[str, float],
        keep: Callable[[str], bool],
        sentences: bool,
    ) -> None:
        self.constraints = constraints
        self.keep = keep
        self.sentences = sentences
        self.front = Archive(weights)
        self.fallback: Hypothesis | None = None
        self.incomplete: Hypothesis | None = None

    def satisfies(self, item: Hypothesis) -> bool:
        """Whether a text has all that the constraints ask of a complete one."""
        return self.constraints.completes(item.text, len(item.ids))

    def best(self, held: Sequence[Hypothesis]) -> Hypothesis:
        """The best complete text; while there is none, the fallback or the best of the texts given."""
        if (found := self.front.best()) is not None:
            return found
        if self.fallback is not None:
            return self.fallback
        return min(held, key=lambda item: (not self.satisfies(item), item.value))

    def end(self, item: Hypothesis) -> None:
        """Keep a text that the language model ends, unless it clearly goes on, as after "Mr."."""
        if not self.sentences or self._ending(item) != "going":
            self._add(item)

    def add_if_complete(self, item: Hypothesis, appends: bool) -> bool:
        """Keep a text if it may be returned.

        Args:
            item: a text that was scored.
            appends: whether texts grow.

        Returns:
            Whether it may.
        """
        ending = self._ending(item) if self.sentences else "sure"
        # Only the language model can tell whether "45." has come to an end, if the text could go on.
        if ending == "sure" or (ending == "open" and not appends):
            return self._add(item)
        # Some texts are better as long as they have not come to an end; the result tells of the best.
        better = self.incomplete is None or item.value < self.incomplete.value
        if better and self.satisfies(item) and self.keep(item.text):
            self.incomplete = item
        return False

    def _add(self, item: Hypothesis) -> bool:
        """Keep a text as a complete one, if the constraints and all tokenizers agree."""
        if not item.terms or not self.satisfies(item):
            return False
        if self.front.would_take(item) and self.keep(item.text):
            self.front.add(replace(item, complete=True))
        return True

    def _ending(self, item: Hypothesis) -> Ending:
        found = sentence_ending(item.text)
        if found == "ellipsis":
            return "sure" if self.constraints.ellipsis else "going"
        return found

    def revalue(self, revalued: Callable[[Iterable[Hypothesis]], list[Hypothesis]]) -> None:
        """Give all texts the values that they have now; see ``Scalarizer.revalued``."""
        self.front.restore(revalued(self.front.values()))
        if self.fallback is not None:
            (self.fallback,) = revalued([self.fallback])
        if self.incomplete is not None:
            (self.incomplete,) = revalued([self.incomplete])

    def state_dict(self) -> dict[str, Any]:
        """All texts; JSON values."""
        return {
            "finished": [item.to_dict() for item in self.front.values()],
            "fallback": None if self.fallback is None else self.fallback.to_dict(),
            "incomplete": None if self.incomplete is None else self.incomplete.to_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.front.restore(Hypothesis.from_dict(item) for item in state["finished"])
        fallback, incomplete = state["fallback"], state.get("incomplete")
        self.fallback = None if fallback is None else Hypothesis.from_dict(fallback)
        self.incomplete = None if incomplete is None else Hypothesis.from_dict(incomplete)
