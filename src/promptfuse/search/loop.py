"""The loop: propose, score exactly, go on from what the strategy picks."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from promptfuse._utils.values import functions, some_text, whole_number
from promptfuse.errors import ConfigError, TextError
from promptfuse.models import disable_prefix_cache
from promptfuse.objectives import Objective, Term
from promptfuse.search.arguments import check_weights, expect_object
from promptfuse.search.constraints import Constraints
from promptfuse.search.feasible import check_beginning, check_required
from promptfuse.search.hypothesis import Hypothesis, Proposal, Step
from promptfuse.search.methods.proposer import Proposer, SearchContext
from promptfuse.search.methods.registry import make_proposer
from promptfuse.search.methods.settings import AutoDAN, Chain, Method, describe_method
from promptfuse.search.pareto import Archive, pareto_front
from promptfuse.search.readback import RoundTrip
from promptfuse.search.result import Result, continuations, describe_models
from promptfuse.search.resume import require_resumable
from promptfuse.search.scalarizer import Scalarisation, Scalarizer, Weights
from promptfuse.search.scoring import hypotheses, known_fluency
from promptfuse.search.sentences import Ending, sentence_ending
from promptfuse.search.state import RunFolder
from promptfuse.search.stopping import Stopping, shared_out, stopping_of, wanted_continuations
from promptfuse.search.strategies import BeamSearch, Selector, Strategy, make_selector

LOGGER = logging.getLogger(__name__)
"""Where the warnings go."""

Callback = Callable[["Search", Step], object]
"""Called behind every step; one that returns True stops the search."""


class Search:
    """A search that can be owned: iterate over it, stop, save its state, go on.

        search = Search(objective, AutoDAN(candidates=16), BeamSearch(4), steps=20)
        for step in search:
            print(step.best.text)
        result = search.result()

    Args:
        objective: what a text is judged by; a term by itself, or a list of terms, counts as an objective.
        method: how texts are proposed.
        strategy: which texts are gone on from.
        prefix: what every text begins with; part of the text that is judged. Blanks around it are cut
            off: a word brings the blank before it along.
        glue: let the first new token go on with the prefix's last word; otherwise it begins a word.
        steps: the most steps; see ``Stopping``, also for the default.
        patience: stop when the best complete text has not changed for this many steps; see ``Stopping``.
        early_stop: stop as soon as language models go on behind the best complete text with what
            ``TargetContinuation`` terms want; see ``Stopping``.
        stopping: everything that ends a search, in place of ``steps``, ``patience`` and ``early_stop``.
        constraints: rules that every text obeys.
        complete: whether a text that grows has to come to an end before it may be returned: by a sentence's
            end, or by the language model's. If not, every text may be returned, as suits prompts, which need
            not be sentences.
        weights: ``given``, ``auto`` or importances by term; see ``Scalarizer``.
        scalarisation: ``weighted`` or ``chebyshev``; see ``Scalarizer``.
        seed: for methods that draw.
        batch_size: the most rows in one forward pass; None for as many as fit.
        exact: read every text whole, with nothing remembered: the slow reference, with the same result.
        callbacks: functions that are called with the search and the step behind every step; one that returns
            True stops the search, as ``stop`` does.
        run_dir: a folder that the history and the state are written to behind every step. If there is a
            state in it already, the search goes on from there. More steps, and other limits, may be asked for
            where it would have come as far with them.

    Raises:
        ConfigError: if a setting is out of range or of a wrong kind, there is no language model among the
            terms, or the run folder belongs to another search.
        TextError: if no text can begin as asked.
    """

    def __init__(
        self,
        objective: Objective | Term | Sequence[Term],
        method: Method | None = None,
        strategy: Strategy | None = None,
        *,
        prefix: str = "",
        glue: bool = False,
        steps: int | None = None,
        patience: int | None = None,
        early_stop: bool | None = None,
        stopping: Stopping | None = None,
        constraints: Constraints | None = None,
        complete: bool = True,
        weights: Weights = "given",
        scalarisation: Scalarisation = "weighted",
        seed: int = 0,
        batch_size: int | None = None,
        exact: bool = False,
        callbacks: Sequence[Callback] = (),
        run_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        objective = Objective.of(objective)
        expect_object(method, "method", Method, AutoDAN)
        expect_object(strategy, "strategy", Strategy, BeamSearch)
        expect_object(constraints, "constraints", Constraints, Constraints)
        expect_object(stopping, "stopping", Stopping, Stopping)
        prefix = some_text(prefix, "prefix")
        for value, name in ((glue, "glue"), (complete, "complete"), (exact, "exact")):
            if not isinstance(value, bool):
                raise ConfigError(f"{name}: {value!r:.60} is neither True nor False; give one")
        check_weights(weights)
        seed = whole_number(seed, "seed", 0)
        if batch_size is not None:
            batch_size = whole_number(batch_size, "batch size")
        self.stopping = stopping_of(stopping, steps, patience, early_stop)
        self.weighing = Scalarizer(objective, weights, scalarisation)
        self.objective = self.weighing.objective
        self.method = method or AutoDAN()
        self.strategy = strategy or BeamSearch()
        self.constraints = constraints or Constraints()
        self.complete = complete
        self.prefix, self.glue = prefix.strip(), glue
        self.seed, self.batch_size, self.exact = seed, batch_size, exact
        self.callbacks = list(functions(callbacks, "callbacks"))
        self._targets = wanted_continuations(self.objective) if self.stopping.early_stop else {}
        self._stopped = False
        self._matches: dict[str, bool] = {}
        self.round_trip = RoundTrip(self.objective)
        self._described = objective.describe()
        self.finished = Archive(self.objective.weights)
        self.history: list[Step] = []
        self.exact_evaluations = 0
        self.seconds = 0.0
        self.stage = 0
        self.stage_steps = 0
        self.quiet_steps = 0
        self.proposer, self.selector = self._begin_stage()
        # What a chain begins by appending may be cut off; editing it does not make it whole.
        self._sentences = complete and self.proposer.appends
        check_required(self.constraints, self.objective.primary, self.round_trip)
        self.beams = self.proposer.start([])
        for beam in self.beams:
            check_beginning(self.constraints, beam.text, self.round_trip)
        self._fallback: Hypothesis | None = None
        self._incomplete: Hypothesis | None = None
        self.run_folder = RunFolder(run_dir) if run_dir is not None else None
        if self.run_folder is not None and (saved := self.run_folder.load()) is not None:
            try:
                self.load_state_dict(saved)
            except ConfigError as error:
                raise ConfigError(f"run folder {str(self.run_folder.path)!r}: {error}") from None

    def _begin_stage(self) -> tuple[Proposer, Selector]:
        seed = self.seed if self.stage == 0 else (self.seed, self.stage)
        setting = SearchContext(
            self.objective, self.constraints, self.prefix, self.strategy.width, seed, self._keep, self.glue
        )
        selector = make_selector(self.strategy, self.constraints.progress, self._keep)
        proposer = make_proposer(setting, self._methods[self.stage])
        selector.stateful = proposer.stateful
        return proposer, selector

    def _keep(self, text: str) -> bool:
        """Whether every model reads a text back."""
        return not self.constraints.round_trip or self.round_trip.holds(text)

    @property
    def _methods(self) -> tuple[Method, ...]:
        return self.method.methods if isinstance(self.method, Chain) else (self.method,)

    @property
    def steps(self) -> int:
        """The most steps of the whole search."""
        if isinstance(self.method, Chain):
            return sum(self.method.steps or [self.stopping.steps] * len(self.method.methods))
        return self.stopping.steps

    @property
    def patience(self) -> int:
        """See ``Stopping``."""
        return self.stopping.patience

    @property
    def done(self) -> bool:
        """Whether the search was stopped or has nothing left to do, or a model has no room for more."""
        best = self.finished.best()
        value = None if best is None else best.value
        if self._stopped or (best is not None and self._goes_on_as_wanted(best.text)):
            return True
        if self.stopping.reached(self.seconds, self.exact_evaluations, value):
            return True
        return self.stage == len(self._methods) - 1 and self._stage_done

    def stop(self) -> None:
        """End the search behind the step that it takes now: loops over it end, and ``run`` returns.

        A search in a run folder goes on where it was stopped when it is begun again.
        """
        self._stopped = True

    def _goes_on_as_wanted(self, text: str) -> bool:
        """Whether a match is to end the search, and there is one behind this text."""
        if not self._targets:
            return False
        if text not in self._matches:
            found = all(term.matched(text) is not None for term in self._targets.values())
            self._matches = {text: found}
        return self._matches[text]

    @property
    def _stage_done(self) -> bool:
        most = self.stopping.steps
        if isinstance(self.method, Chain) and self.method.steps:
            most = self.method.steps[self.stage]
        if not self.beams or self.stage_steps >= most or self.quiet_steps >= self.stopping.patience:
            return True
        return not (self.selector.waiting or self.proposer.has_room(self.beams))

    @property
    def best(self) -> Hypothesis:
        """The best complete text, or the best beam while there is none."""
        if (found := self.finished.best()) is not None:
            return found
        if self._fallback is not None:
            return self._fallback
        held = self.beams or [self.history[-1].best]
        return min(held, key=lambda item: (not self._satisfies(item), item.value))

    def _satisfies(self, item: Hypothesis) -> bool:
        """Whether a text has all that the constraints ask of a complete one."""
        return self.constraints.completes(item.text, len(item.ids))

    def __iter__(self) -> Iterator[Step]:
        """Take steps until the search is done."""
        while not self.done:
            yield self.step()

    def step(self) -> Step:
        """Take one step.

        Raises:
            ConfigError: in ``torch.inference_mode``.
        """
        if torch.is_inference_mode_enabled():
            raise ConfigError("a search takes gradients, which inference_mode forbids; use torch.no_grad")
        with disable_prefix_cache() if self.exact else nullcontext():
            return self._step()

    def _step(self) -> Step:
        if self.run_folder is not None and not self.history:
            self.run_folder.begin(self.state_dict())
        started = time.perf_counter()
        best_before = self.finished.best()
        proposals, ended = self.proposer.propose(self.beams)
        for number in ended:
            # Whatever the language model holds for likely: nothing ends with "Mr.".
            if not self._sentences or self._ending(self.beams[number]) != "going":
                self._finish(self.beams[number])
        before = self.exact_evaluations
        children = self._score(proposals)
        # A sentence that is complete and grows no more leaves the beams.
        leaves = self._sentences and self.proposer.appends
        children = [item for item in children if not (self._finish_if_complete(item) and leaves)]
        last = self.beams
        self.beams = self._select(last, children)
        if not self.beams and not self.finished:
            self._fall_back(last)
        best_after = self.finished.best()
        changed = best_after is not None and (best_before is None or best_after.text != best_before.text)
        if changed or best_after is None:
            self.quiet_steps = 0
        elif not self.proposer.appends or all(beam.value >= best_after.value for beam in self.beams):
            self.quiet_steps += 1  # A text that is better already may come to an end yet.
        self.stage_steps += 1
        stage, gains = self.stage + 1, self.proposer.gains
        if self._stage_done and not self.done:
            self._next_stage()
        self.seconds += time.perf_counter() - started
        step = Step(
            number=len(self.history) + 1,
            beams=tuple(self.beams),
            best=self.best,
            proposed=self.exact_evaluations - before,
            exact_evaluations=self.exact_evaluations,
            gains=gains,
            seconds=self.seconds,
            stage=stage,
        )
        self.history.append(step)
        if self.run_folder is not None:
            self.run_folder.save(step, self.state_dict())
        for callback in self.callbacks:
            if (answer := callback(self, step)) is True or (isinstance(answer, np.bool_) and answer):
                self.stop()
        return step

    def _select(self, last: Sequence[Hypothesis], children: Sequence[Hypothesis]) -> list[Hypothesis]:
        by_text = {item.text: item for item in children}
        # Starts are scored with what comes from them, but are not among it.
        starts = {item.text for item in last if not item.terms}
        children = [item for item in children if item.text not in starts or item.parent == item.text]
        parents = [by_text.get(item.text, item) for item in last] if self.proposer.keeps_parents else []
        if self.proposer.only_improvements:
            values = {item.text: item.value for item in parents}
            children = [item for item in children if item.value < values.get(item.parent, float("inf"))]
        best = self.finished.best()
        return self.selector.select(parents, children, None if best is None else best.value)

    def _finish_if_complete(self, item: Hypothesis) -> bool:
        """Keep a text that may be returned; whether it is one."""
        ending = self._ending(item) if self._sentences else "sure"
        # Whether "45." has come to an end tells the language model, where it could go on.
        if ending == "sure" or (ending == "open" and not self.proposer.appends):
            return self._finish(item)
        # Some texts are better as long as they have not come to an end; the result tells of the best.
        better = self._incomplete is None or item.value < self._incomplete.value
        if better and self._satisfies(item) and self._keep(item.text):
            self._incomplete = item
        return False

    def _ending(self, item: Hypothesis) -> Ending:
        """What the end of a text is, by the constraints' choice of ellipses."""
        found = sentence_ending(item.text)
        if found == "ellipsis":
            return "sure" if self.constraints.ellipsis else "going"
        return found

    def _finish(self, item: Hypothesis) -> bool:
        """Keep a text as a complete one, if the constraints and all tokenizers agree."""
        if not item.terms or not self._satisfies(item):
            return False
        if self.finished.would_take(item) and self._keep(item.text):
            self.finished.add(replace(item, complete=True))
        return True

    def _fall_back(self, last: Sequence[Hypothesis]) -> None:
        """Return an unfinished text where the search has come to an end without a complete one."""
        scored = [item for item in last if item.terms]
        if not scored:
            raise ConfigError(
                f"no token can be put behind {self.prefix!r}: the constraints forbid all, or a model "
                "has no room; loosen the constraints or change the prefix"
            )
        self._fallback = min(scored, key=lambda item: item.value)

    def _next_stage(self) -> None:
        complete = sorted(self.finished.values(), key=lambda item: item.value)
        given = (complete or self.beams or [self.best])[: self.strategy.width]
        self.stage += 1
        self.stage_steps = self.quiet_steps = 0
        self.proposer, self.selector = self._begin_stage()
        self.beams = self.proposer.start(given)

    def _score(self, proposals: Sequence[Proposal]) -> list[Hypothesis]:
        """Score proposals exactly, those that start the search with them.

        A proposal that has outgrown one of the models is dropped, not an error: the search has shorter
        ones.
        """
        if not self.proposer.appends:
            fresh = [Proposal(item.text, item.ids, item.nll, -1) for item in self.beams if not item.terms]
            known = {item.text for item in self.beams}
            again = [item for item in proposals if item.text in known]
            proposals = fresh + [item for item in proposals if item.text not in known]
        else:
            again = []
        if self.stopping.evaluations is not None:
            proposals = shared_out(proposals, self.stopping.evaluations - self.exact_evaluations)
        try:
            scored = self._score_fitting(proposals)
        except TextError:
            scored = self._score_fitting([item for item in proposals if self.objective.fits(item.text)])
        if not again:
            return scored
        by_text = {item.text: item for item in (*self.beams, *scored)}
        return [*scored, *(replace(by_text[item.text], parent=item.text) for item in again)]

    def _score_fitting(self, proposals: Sequence[Proposal]) -> list[Hypothesis]:
        if not proposals:
            return []
        texts = [item.text for item in proposals]
        parents = [self.beams[item.parent].text if item.parent >= 0 else "" for item in proposals]
        known = known_fluency(self.objective, proposals)
        losses = self.objective.score(texts, known=known, batch_size=self.batch_size, parents=parents)
        self.exact_evaluations += len(proposals)
        if not self.weighing.ready:
            self.weighing.fit(losses)
        if self.weighing.see(losses):
            self._revalue()
        self.proposer.observe(proposals, losses)
        return hypotheses(proposals, parents, self.weighing.values(losses), losses)

    def _revalue(self) -> None:
        """Give all texts that are held the values that they have now."""
        revalued = self.weighing.revalued
        self.beams = revalued(self.beams)
        self.finished.restore(revalued(self.finished.values()))
        self.selector.revalue(revalued)
        if self._fallback is not None:
            (self._fallback,) = revalued([self._fallback])
        if self._incomplete is not None:
            (self._incomplete,) = revalued([self._incomplete])

    def run(self) -> Result:
        """Take all steps and return the result."""
        for _ in self:
            pass
        return self.result()

    def result(self) -> Result:
        """The result so far; its value is scored from scratch.

        What is not as it was asked for, such as a required phrase that is missing, is logged as a warning.

        Raises:
            ConfigError: if there is no text yet.
        """
        best = self.best
        if not best.text.strip():
            raise ConfigError("the search has no text yet; take a step first, or give a prefix")
        terms = self.objective.exact(best.text).terms
        value = self.weighing.value(terms)
        better = self._incomplete if best.complete else None
        result = Result(
            text=best.text,
            value=value,
            terms=terms,
            weights=self.objective.weights,
            complete=best.complete,
            history=list(self.history),
            pareto_front=pareto_front(self.finished.values(), self.objective.weights),
            exact_evaluations=self.exact_evaluations,
            seconds=self.seconds,
            seed=self.seed,
            config=self.config,
            models=describe_models(self.objective),
            continuations=continuations(self.objective, best.text),
            satisfied=self._satisfies(best),
            missing=tuple(self.constraints.missing(best.text)),
            incomplete=better if better is not None and better.value < value else None,
            ideal=self.weighing.ideal,
        )
        for note in result.notes:
            LOGGER.warning(note)
        return result

    @property
    def config(self) -> dict[str, Any]:
        """The settings, as plain values."""
        return {
            "method": describe_method(self.method),
            "strategy": {"name": type(self.strategy).__name__, **asdict(self.strategy)},
            "constraints": asdict(self.constraints),
            "stopping": asdict(self.stopping),
            **({} if self.complete else {"complete": False}),
            **self.weighing.describe(),
            "prefix": self.prefix,
            **({"glue": True} if self.glue else {}),
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed search needs to end in the same result; JSON values."""
        return {
            "format": 2,
            "config": self.config,
            "objective": self._described,
            "beams": [item.to_dict() for item in self.beams],
            "finished": [item.to_dict() for item in self.finished.values()],
            "fallback": None if self._fallback is None else self._fallback.to_dict(),
            "incomplete": None if self._incomplete is None else self._incomplete.to_dict(),
            "history": [step.to_dict() for step in self.history],
            "exact_evaluations": self.exact_evaluations,
            "seconds": self.seconds,
            "stage": self.stage,
            "stage_steps": self.stage_steps,
            "quiet_steps": self.quiet_steps,
            "weighing": self.weighing.state_dict(),
            "selector": self.selector.state_dict(),
            "proposer": self.proposer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises:
            ConfigError: if the state belongs to other settings or models, which the message names. Limits,
                such as the most steps, may be others where the search would have come as far with them.
        """
        try:
            require_resumable(state, self.config, self._described)
            self._restore(state)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError):
            raise ConfigError("the saved search is damaged or of another version; begin anew") from None

    def _restore(self, state: dict[str, Any]) -> None:
        self.stage = state["stage"]
        self.proposer, self.selector = self._begin_stage()
        self.beams = [Hypothesis.from_dict(item) for item in state["beams"]]
        self.finished.restore(Hypothesis.from_dict(item) for item in state["finished"])
        self._fallback = None if state["fallback"] is None else Hypothesis.from_dict(state["fallback"])
        unfinished = state.get("incomplete")
        self._incomplete = None if unfinished is None else Hypothesis.from_dict(unfinished)
        self.history = [Step.from_dict(step) for step in state["history"]]
        self.exact_evaluations = state["exact_evaluations"]
        self.seconds = state["seconds"]
        self.stage_steps = state["stage_steps"]
        self.quiet_steps = state["quiet_steps"]
        self.weighing.load_state_dict(state["weighing"])
        self.selector.load_state_dict(state["selector"])
        self.proposer.load_state_dict(state["proposer"])
