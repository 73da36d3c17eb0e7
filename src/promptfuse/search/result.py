"""What a search returns."""

from __future__ import annotations

import json
import platform
from collections.abc import Sized
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import torch
import transformers

from promptfuse.errors import ConfigError
from promptfuse.objectives import Continuation, Objective, TargetContinuation
from promptfuse.search.hypothesis import Hypothesis, Step
from promptfuse.search.methods.base import Method
from promptfuse.search.methods.swaps import same_model
from promptfuse.search.methods.transports import transport_name
from promptfuse.version import __version__

if TYPE_CHECKING:
    import pandas

FAR = 0.25
"""How much better a text that has not come to an end must be to be told of, as a share of the value."""


@dataclass(frozen=True, repr=False)
class Result:
    """The best text and how it was found.

    Attributes:
        text: the best complete text, or the best one if none was completed.
        value: its objective, scored from scratch.
        terms: its unweighted losses by term.
        weights: the weights of the terms.
        complete: whether the text has come to an end, by a sentence's end or the language model's; where the
            search does not ask for that, or edits whole texts, whether it may be returned as it is.
        history: the steps of the search.
        pareto_front: the complete texts seen that no other one beats in every term.
        exact_evaluations: how many texts were scored exactly.
        seconds: wall time of the search.
        seed: the seed of whatever was drawn.
        config: method, strategy and constraints.
        models: name, fingerprint (of embedding table and tokenizer) and identity (of all weights and
            settings) of each term's model; of a language model also ``start``, what stands before every text.
        versions: of promptfuse and what computes under it.
        continuations: for each ``TargetContinuation`` term, what its model itself says behind the text,
            taking the likeliest tokens, and whether that begins with a target; see ``Continuation``.
        satisfied: whether the text has all that the constraints ask of a complete one, such as the required
            phrases; if not, none was found that has.
        missing: the required phrases that it does not have.
        incomplete: the best text seen that had not come to an end, if it has a lower value than this complete
            one; None otherwise. See ``Search`` for how to have it returned instead.
        ideal: the best loss of each term that was seen, which Chebyshev values are measured from; None for
            weighted sums.
    """

    text: str
    value: float
    terms: dict[str, float]
    weights: dict[str, float]
    complete: bool
    history: list[Step]
    pareto_front: list[Hypothesis]
    exact_evaluations: int
    seconds: float
    seed: int
    config: dict[str, Any]
    models: dict[str, dict[str, str]]
    versions: dict[str, str] = field(default_factory=lambda: versions())
    continuations: dict[str, Continuation] = field(default_factory=dict)
    satisfied: bool = True
    missing: tuple[str, ...] = ()
    incomplete: Hypothesis | None = None
    ideal: dict[str, float] | None = None

    def __repr__(self) -> str:
        """The text with its value and terms, and how it was found, in a few lines."""
        terms = ", ".join(f"{name} {loss:.3f} x {self.weights[name]:g}" for name, loss in self.terms.items())
        lines = [
            f"Result({_shortened(self.text)!r}{'' if self.complete else ', incomplete'})",
            f"  value {self.value:.3f}: {terms}",
            *(f"  {line}" for line in self.said()),
            *(f"  {_shortened(line)}" for line in self.notes),
            f"  {_counted(self.history, 'step')}, {self.exact_evaluations:,} texts scored, "
            f"{self.seconds:.1f} s, seed {self.seed}; {_counted(self.pareto_front, 'text')} in pareto_front",
        ]
        return "\n".join(lines)

    def said(self) -> list[str]:
        """A line for each continuation: what the model says behind the text, and whether it is a target."""
        lines = []
        for name, found in self.continuations.items():
            wanted = " or ".join(map(repr, found.targets))
            told = "matches" if found.matches else "does not match"
            said = _shortened(found.text)
            lines.append(f"{name}: the model continues with {said!r}, which {told} {_shortened(wanted)}")
        return lines

    @property
    def notes(self) -> list[str]:
        """What is not as it was asked for, each in a line; empty where all is well.

        A required phrase or another rule for complete texts that was not met, and a text that had not come to
        an end and is far better: by more than a quarter of the returned text's value, without its sign.
        """
        found = []
        if self.missing:
            phrases = ", ".join(repr(phrase) for phrase in self.missing)
            found.append(f"no text with the required {phrases} was found; take more steps or other words")
        elif not self.satisfied:
            found.append(
                f"no text was found that satisfies the rules for complete texts ({self.text!r} does not); "
                "take "
                "more steps or loosen them"
            )
        better = self.incomplete
        if better is not None and self.value - better.value > FAR * abs(self.value):
            found.append(
                f"{better.text!r} has not come to an end and is far better: value {better.value:.3f}, "
                f"returned {self.value:.3f}; take more steps, or set complete to false to return it"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.__dict__,
            "history": [step.to_dict() for step in self.history],
            "pareto_front": [item.to_dict() for item in self.pareto_front],
            "continuations": {name: found.to_dict() for name, found in self.continuations.items()},
            "incomplete": None if self.incomplete is None else self.incomplete.to_dict(),
            "notes": self.notes,
        }

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def top(self, n: int = 5) -> list[Hypothesis]:
        """The best complete texts that the search kept, best first.

        These are the Pareto front and the texts that were the best at some step. Under
        ``scalarisation="chebyshev"``, where values of different steps do not compare, only the front.

        Args:
            n: how many; there may be fewer.
        """
        best = [step.best for step in self.history if step.best.complete] if self.ideal is None else []
        by_text = {item.text: item for item in [*best, *self.pareto_front]}
        return sorted(by_text.values(), key=lambda item: item.value)[:n]

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each step: the best text so far, its value and losses by term, evaluations and seconds.

        Raises:
            ConfigError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ConfigError("to_pandas needs pandas; pip install pandas") from None
        rows = [
            {
                "step": step.number,
                "text": step.best.text,
                "value": step.best.value,
                **step.best.terms,
                "complete": step.best.complete,
                "exact_evaluations": step.exact_evaluations,
                "seconds": step.seconds,
            }
            for step in self.history
        ]
        return pandas.DataFrame(rows)

    def _repr_html_(self) -> str:
        """A small card for notebooks: the text, and a table of its terms."""
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{loss:.3f}</td><td>{self.weights[name]:g}</td></tr>"
            for name, loss in self.terms.items()
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return (
            f"<p><strong>{escape(self.text)}</strong></p>{notes}"
            f"<table><tr><th>term</th><th>loss</th><th>weight</th></tr>{rows}"
            f"<tr><th>value</th><th>{self.value:.3f}</th><th></th></tr></table>"
            f"<p>{_counted(self.history, 'step')}, {self.exact_evaluations:,} texts scored, "
            f"{self.seconds:.1f} s</p>"
        )


def _counted(things: Sized, name: str) -> str:
    """How many there are: ``1 step``, ``2 steps``."""
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"


def _shortened(text: str, most: int = 200) -> str:
    """A text without its middle, where it is long."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"


def continuations(objective: Objective, text: str) -> dict[str, Continuation]:
    """What the models of continuation terms themselves say behind a text."""
    return {
        name: term.continuation(text)
        for name, term in objective.terms.items()
        if isinstance(term, TargetContinuation)
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "promptfuse": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def describe_models(objective: Objective, method: Method) -> dict[str, dict[str, str]]:
    """What the model of each term is (name, fingerprint, identity), and the reader that it was read by.

    Also the transport, where the method left its choice to a trial.
    """
    models = {name: term.model for name, term in objective.terms.items() if term.has_model}
    found = {name: {**model.describe(), "reader": model.reader.name} for name, model in models.items()}
    if any(getattr(stage, "transport", "") == "auto" for stage in method.stages):
        for name, term in objective.terms.items():
            if term.has_gradient and not same_model(term.model, objective.primary):
                found[name]["transport"] = transport_name(objective.primary, term.model, "auto")
    return found
