"""The loop: propose, score exactly, keep the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from promptfuse.errors import ConfigError, TextError
from promptfuse.objectives import Fluency, Objective
from promptfuse.search.constraints import Constraints
from promptfuse.search.hypothesis import Hypothesis, Proposal, Step
from promptfuse.search.methods import AutoDAN, BeamSearch, Method
from promptfuse.search.proposals import SENTENCE_ENDS, make_proposer
from promptfuse.search.result import Result, describe_models, pareto_front

Callback = Callable[["Search", Step], None]
"""Called behind every step."""


class Search:
    """A search that can be owned: iterate over it, stop, save its state, go on.

        search = Search(objective, AutoDAN(candidates=16), BeamSearch(4), steps=20)
        for step in search:
            print(step.best.text)
        result = search.result()

    Args:
        objective: what a text is judged by.
        method: how texts are proposed.
        strategy: which texts are kept.
        prefix: what every text begins with; part of the text that is judged. Blanks around it are cut
            off: a word brings the blank before it along.
        steps: the most steps.
        patience: stop when the best complete text has not changed for this many steps.
        constraints: rules that every text obeys.
        seed: for methods that draw.
        batch_size: the most rows in one forward pass; None for as many as fit.
        callbacks: called with the search and the step behind every step.

    Raises:
        ConfigError: if a setting is out of range, or there is no language model among the terms.
    """

    def __init__(
        self,
        objective: Objective,
        method: Method | None = None,
        strategy: BeamSearch | None = None,
        *,
        prefix: str = "",
        steps: int = 16,
        patience: int = 4,
        constraints: Constraints | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        for name, number in (("steps", steps), ("patience", patience), ("batch size", batch_size)):
            if number is not None and number < 1:
                raise ConfigError(f"{name}: {number} is too few; give 1 or more")
        self.objective = objective
        self.method = method or AutoDAN()
        self.strategy = strategy or BeamSearch()
        self.constraints = constraints or Constraints()
        self.prefix, self.steps, self.patience = prefix.strip(), steps, patience
        self.seed, self.batch_size, self.callbacks = seed, batch_size, list(callbacks)
        self.proposer = make_proposer(objective, self.method, self.constraints, seed)
        self.beams = [self._start(self.prefix)]
        self.finished: dict[str, Hypothesis] = {}
        self.history: list[Step] = []
        self.exact_evaluations = 0
        self.seconds = 0.0
        self.quiet_steps = 0

    def _start(self, prefix: str) -> Hypothesis:
        primary = self.objective.primary
        if not prefix:
            if not primary.start_ids:
                raise ConfigError(f"{primary.name} has no begin-of-text token; give a prefix to begin with")
            return Hypothesis("", (), 0.0)
        if not prefix.isprintable():
            raise TextError(f"prefix {prefix!r}: has a line break or control character; use one line")
        if not self.constraints.allows(prefix):
            raise TextError(
                f"prefix {prefix!r}: breaks the constraints (repeated or banned words); change either"
            )
        (ids,) = primary.plain_ids([prefix])
        if special := set(ids) & set(primary.tokenizer.all_special_ids):
            shown = primary.tokenizer.decode([min(special)])
            raise TextError(f"prefix {prefix!r}: {shown} is a special token of {primary.name}; leave it out")
        text = primary.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if text != prefix:
            raise TextError(
                f"prefix {prefix!r}: {primary.name} reads it as {text!r}; use characters that it knows"
            )
        with torch.no_grad():
            total, _ = primary.nll(primary.encode([prefix]))
        return Hypothesis(prefix, tuple(ids), float(total))

    @property
    def done(self) -> bool:
        """Whether the search has nothing left to do, or the language model has no room for more."""
        if not self.beams or len(self.history) >= self.steps or self.quiet_steps >= self.patience:
            return True
        primary = self.objective.primary
        return len(primary.start_ids) + len(self.beams[0].ids) >= primary.max_length

    @property
    def best(self) -> Hypothesis:
        """The best complete text, or the best beam while there is none."""
        pool = list(self.finished.values()) or self.beams or [self.history[-1].best]
        return min(pool, key=lambda item: item.value)

    def __iter__(self) -> Iterator[Step]:
        """Take steps until the search is done."""
        while not self.done:
            yield self.step()

    def step(self) -> Step:
        """Take one step."""
        started = time.perf_counter()
        best_before = min((item.value for item in self.finished.values()), default=None)
        proposals, ended = self.proposer.propose(self.beams)
        for number in ended:
            self._finish(self.beams[number])
        scored = self._score(proposals)
        open_ones = []
        for item in scored:
            if item.text.rstrip().endswith(SENTENCE_ENDS):
                self._finish(item)
            else:
                open_ones.append(item)
        last = self.beams
        self.beams = sorted(open_ones, key=lambda item: item.value)[: self.strategy.width]
        best_after = min((item.value for item in self.finished.values()), default=None)
        self.quiet_steps = self.quiet_steps + 1 if best_after == best_before and best_after is not None else 0
        self.seconds += time.perf_counter() - started
        if not self.beams and not self.finished:
            self.finished = {item.text: item for item in last if item.terms}
            if not self.finished:
                raise ConfigError(
                    f"no token can be put behind {self.prefix!r}: the constraints forbid all, or a model "
                    "has no room; loosen the constraints or change the prefix"
                )
        step = Step(
            number=len(self.history) + 1,
            beams=tuple(self.beams),
            best=self.best,
            proposed=len(proposals),
            exact_evaluations=self.exact_evaluations,
            gains=self.proposer.gains,
            seconds=self.seconds,
        )
        self.history.append(step)
        for callback in self.callbacks:
            callback(self, step)
        return step

    def _finish(self, item: Hypothesis) -> None:
        if item.terms:
            self.finished[item.text] = Hypothesis(**{**item.__dict__, "complete": True})

    def _score(self, proposals: Sequence[Proposal]) -> list[Hypothesis]:
        """Score proposals exactly; the primary's NLL is known from the parents' distributions.

        A proposal that has outgrown one of the models is dropped, not an error: the search has shorter
        ones.
        """
        if not proposals:
            return []
        try:
            return self._score_fitting(proposals)
        except TextError:
            return self._score_fitting([item for item in proposals if self.objective.fits(item.text)])

    def _score_fitting(self, proposals: Sequence[Proposal]) -> list[Hypothesis]:
        if not proposals:
            return []
        primary = self.objective.primary
        predicted = 0 if primary.start_ids else 1
        means = torch.tensor([item.nll / (len(item.ids) - predicted) for item in proposals])
        known = {
            name: means
            for name, term in self.objective.terms.items()
            if isinstance(term, Fluency) and term.model is primary and not term.prefix and not term.suffix
        }
        losses = self.objective.score(
            [item.text for item in proposals],
            known=known,
            batch_size=self.batch_size,
            parents=[self.beams[item.parent].text for item in proposals],
        )
        self.exact_evaluations += len(proposals)
        self.proposer.observe(proposals, losses)
        values = self.objective.totals(losses).tolist()
        columns = {name: found.tolist() for name, found in losses.items()}
        return [
            Hypothesis(
                text=item.text,
                ids=item.ids,
                nll=item.nll,
                value=values[index],
                terms={name: column[index] for name, column in columns.items()},
                parent=self.beams[item.parent].text,
            )
            for index, item in enumerate(proposals)
        ]

    def run(self) -> Result:
        """Take all steps and return the result."""
        for _ in self:
            pass
        return self.result()

    def result(self) -> Result:
        """The result so far; its value is scored from scratch."""
        best = self.best
        evaluation = self.objective.exact(best.text)
        return Result(
            text=best.text,
            value=evaluation.value,
            terms=evaluation.terms,
            weights=self.objective.weights,
            complete=best.complete,
            history=list(self.history),
            pareto_front=pareto_front(self.finished.values(), self.objective.weights),
            exact_evaluations=self.exact_evaluations,
            seconds=self.seconds,
            seed=self.seed,
            config=self.config,
            models=describe_models(self.objective),
        )

    @property
    def config(self) -> dict[str, Any]:
        """The settings, as plain values."""
        return {
            "method": {"name": type(self.method).__name__, **asdict(self.method)},
            "strategy": {"name": type(self.strategy).__name__, **asdict(self.strategy)},
            "constraints": asdict(self.constraints),
            "prefix": self.prefix,
            "steps": self.steps,
            "patience": self.patience,
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed search needs to end in the same result; JSON values."""
        return {
            "config": self.config,
            "objective": self.objective.describe(),
            "beams": [item.to_dict() for item in self.beams],
            "finished": [item.to_dict() for item in self.finished.values()],
            "history": [step.to_dict() for step in self.history],
            "exact_evaluations": self.exact_evaluations,
            "seconds": self.seconds,
            "quiet_steps": self.quiet_steps,
            "proposer": self.proposer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises:
            ConfigError: if the state belongs to other settings or models.
        """
        for key, own in (("config", self.config), ("objective", self.objective.describe())):
            if _plain(state[key]) != _plain(own):
                raise ConfigError(
                    f"the saved search has another {key}; resume with the settings it was made with"
                )
        self.beams = [Hypothesis.from_dict(item) for item in state["beams"]]
        self.finished = {item["text"]: Hypothesis.from_dict(item) for item in state["finished"]}
        self.history = [Step.from_dict(step) for step in state["history"]]
        self.exact_evaluations = state["exact_evaluations"]
        self.seconds = state["seconds"]
        self.quiet_steps = state["quiet_steps"]
        self.proposer.load_state_dict(state["proposer"])


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
