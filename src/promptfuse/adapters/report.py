"""How an adapter was fitted, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LengthReport:
    """The map for words of one number of sub-tokens.

    Attributes:
        n: sub-tokens, ``max(n_A, n_B)``; 0 stands for the positional map, which all longer words share.
        words: words that the map is fitted on.
        held_out: words on which the figures below were measured; the final fit includes them.
        ridge: weight of the penalty, relative to the mean eigenvalue of the gram.
        r2: share of the weighted variance of B's held-out embeddings that the map explains; can be
            negative. None where nothing was held out.
        cosine: weighted mean cosine between mapped and true embeddings. None where nothing was held out.
    """

    n: int
    words: int
    held_out: int
    ridge: float
    r2: float | None
    cosine: float | None


@dataclass(frozen=True)
class AdapterReport:
    """How an adapter was fitted and how good it is on words it had not seen.

    Attributes:
        model_a: name of the model that the map starts from.
        model_b: name of the model that it leads to.
        preset: name of the way of fitting.
        words: for each (n_A, n_B) the number of words used.
        lengths: one entry for each map.
        positional: the map for words longer than all others.
        coverage: share of the words' total frequency that has a map of its own length.
        skipped: words that one of the models cannot embed.
    """

    model_a: str
    model_b: str
    preset: str
    words: Mapping[tuple[int, int], int]
    lengths: tuple[LengthReport, ...]
    positional: LengthReport
    coverage: float
    skipped: int

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        plain = asdict(self)
        plain["words"] = [[n_a, n_b, count] for (n_a, n_b), count in sorted(self.words.items())]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> AdapterReport:
        """The inverse of `to_json`."""
        return cls(
            model_a=plain["model_a"],
            model_b=plain["model_b"],
            preset=plain["preset"],
            words={(n_a, n_b): count for n_a, n_b, count in plain["words"]},
            lengths=tuple(LengthReport(**entry) for entry in plain["lengths"]),
            positional=LengthReport(**plain["positional"]),
            coverage=plain["coverage"],
            skipped=plain["skipped"],
        )

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("sub-tokens", "words", "held out", "ridge", "R2", "cosine")]
        for entry in (*self.lengths, self.positional):
            quality = ("-" if figure is None else f"{figure:.3f}" for figure in (entry.r2, entry.cosine))
            name = str(entry.n) if entry.n else "longer"
            rows.append((name, str(entry.words), str(entry.held_out), f"{entry.ridge:.1e}", *quality))
        table = "\n".join("  ".join(cell.rjust(10) for cell in row) for row in rows)
        return (
            f"{self.model_a} -> {self.model_b}, preset {self.preset}: "
            f"covers {self.coverage:.1%} of the words by frequency, {self.skipped} skipped\n{table}"
        )
