"""The search loop: propose texts, score them exactly, continue from those that the strategy selects."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch

from promptfuse._utils.values import functions, some_text, whole_number
from promptfuse.errors import ConfigError, TextError
from promptfuse.models import disable_prefix_cache
from promptfuse.objectives import Objective, Term
from promptfuse.search.arguments import check_switches, check_weights, expect_object
from promptfuse.search.checkpoint import Resumable
from promptfuse.search.complete import CompleteTexts
from promptfuse.search.constraints import Constraints
from promptfuse.search.feasible import check_beginning, check_required
from promptfuse.search.hypothesis import Hypothesis, Proposal, Step
from promptfuse.search.methods.autodan import AutoDAN
from promptfuse.search.methods.base import Method
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.proposer import Proposer
from promptfuse.search.methods.registry import methods
from promptfuse.search.pareto import Archive, pareto_front
from promptfuse.search.readback import RoundTrip
from promptfuse.search.result import Result, continuations, describe_models
from promptfuse.search.scalarizer import Scalarisation, Scalarizer, Weights
from promptfuse.search.scoring import KnownLosses, hypotheses, score_proposals
from promptfuse.search.state import RunFolder
from promptfuse.search.stopping import Stopping, shared_out, stopping_of, wanted_continuations
from promptfuse.search.strategies import BeamSearch, Selector, Strategy, strategies

LOGGER = logging.getLogger(__name__)
"""The logger of warnings about results."""

Callback = Callable[["Search", Step], object]
"""Called after every step; one that returns True stops the search."""


class Search(Resumable):
    """A search: run it, or iterate over its steps, stop it, save its state and resume.

        search = Search(objective, AutoDAN(candidates=16), BeamSearch(4), steps=20)
        for step in search:
            print(step.best.text)
        result = search.result()

    Args:
        objective: the loss to minimise; a term, or a list of terms, is an objective too.
        method: how texts are proposed; ``AutoDAN()`` by default.
        strategy: which texts the next step starts from; ``BeamSearch()`` by default.
        prefix: what every text begins with; it is scored with the text. Blanks around it are removed, since
            a word brings the blank before it.
        glue: let the first new token continue the prefix's last word; otherwise it begins a word.
        steps: the most steps, of each method of a chain; 16 by default.
        patience: stop after this many steps without a better complete text; 4 by default.
        early_stop: stop once the models of all ``TargetContinuation`` terms continue the best complete text
            with one of their targets.
        stopping: all rules that end a search, in place of ``steps``, ``patience`` and ``early_stop``.
        constraints: rules that every text obeys.
        complete: whether a growing text must end, as a sentence or by the language model's end-of-text token,
            before it may be returned. Set False for prompts, which need not be sentences.
        weights: ``given`` for the terms' own weights; ``auto`` for weights that put the terms on one scale,
            keeping their signs; or factors on those by term, such as ``{"image": "2x"}``.
        scalarisation: ``weighted`` for the sum of weight x loss; ``chebyshev`` for the term that is farthest
            from the best loss of it seen so far.
        seed: random seed, for methods that sample.
        batch_size: the most rows in one forward pass; None for as many as fit.
        exact: read every text whole, without caches: the slow reference, with the same result.
        callbacks: functions of the search and the step, called after every step; one that returns True stops
            the search.
        run_dir: a folder for the history and the state, written after every step. A search that finds its
            own state there resumes. It may have more steps, or other limits that would not have ended it yet.

    Raises:
        ConfigError: if a setting is out of range or of a wrong type, the models lack what the method needs,
            or the run folder belongs to another search.
        TextError: if no text can begin with the prefix.
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
        expect_object(method, "method", Method, AutoDAN, methods)
        expect_object(strategy, "strategy", Strategy, BeamSearch, strategies)
        expect_object(constraints, "constraints", Constraints, Constraints)
        expect_object(stopping, "stopping", Stopping, Stopping)
        prefix = some_text(prefix, "prefix")
        check_switches(glue=glue, complete=complete, exact=exact)
        check_weights(weights)
        seed = whole_number(seed, "seed", 0)
        if batch_size is not None:
            batch_size = whole_number(batch_size, "batch size")
        self.stopping = stopping_of(stopping, steps, patience, early_stop)
        self.weighing = Scalarizer(objective, weights, scalarisation)
        self.objective = self.weighing.objective
        self.method = method or AutoDAN()
        self.strategy = strategy or BeamSearch()
        self.method.check(self.objective)
        self.constraints = constraints or Constraints()
        self.complete = complete
        self.prefix, self.glue = prefix.strip(), glue
        self.seed, self.batch_size, self.exact = seed, batch_size, exact
        self.callbacks = list(functions(callbacks, "callbacks"))
        self._targets = wanted_continuations(self.objective) if self.stopping.early_stop else {}
        self._stopped = False
        self._matches: dict[str, bool] = {}
        self.round_trip = RoundTrip(self.objective)
        self.described = objective.describe()
        self.history: list[Step] = []
        self.exact_evaluations = 0
        self.seconds = 0.0
        self.stage = 0
        self.stage_steps = 0
        self.quiet_steps = 0
        self.proposer, self.selector = self.begin_stage()
        # What a chain begins by appending may be cut off; editing it does not make it whole.
        sentences = complete and self.proposer.appends
        self.texts = CompleteTexts(self.constraints, self.objective.weights, self._keep, sentences)
        check_required(self.constraints, self.objective.primary, self.round_trip)
        self.beams = self.proposer.start([])
        for beam in self.beams:
            check_beginning(self.constraints, beam.text, self.round_trip)
        self.run_folder = RunFolder(run_dir) if run_dir is not None else None
        if self.run_folder is not None and (saved := self.run_folder.load()) is not None:
            try:
                self.load_state_dict(saved)
            except ConfigError as error:
                raise ConfigError(f"run folder {str(self.run_folder.path)!r}: {error}") from None

    def begin_stage(self) -> tuple[Proposer, Selector]:
        """The current method's proposer and the strategy's selector, as they are before their first step."""
        seed = self.seed if self.stage == 0 else (self.seed, self.stage)
        context = SearchContext(
            self.objective,
            self.constraints,
            self.prefix,
            self.strategy.width,
            seed,
            self._keep,
            self.glue,
            self.batch_size,
            self._evaluations_left,
        )
        selector = self.strategy.selector(self.constraints.progress, self._keep)
        proposer = self.method.stages[self.stage].proposer(context)
        selector.stateful = proposer.stateful
        return proposer, selector

    def _evaluations_left(self) -> int | None:
        most = self.stopping.evaluations
        return None if most is None else most - self.exact_evaluations

    def _keep(self, text: str) -> bool:
        """Whether every model reads a text back."""
        return not self.constraints.round_trip or self.round_trip.holds(text)

    @property
    def finished(self) -> Archive:
        """The complete texts that no other one beats in every term."""
        return self.texts.front

    @property
    def steps(self) -> int:
        """The most steps of the whole search."""
        return sum(self.method.stage_steps or [self.stopping.steps] * len(self.method.stages))

    @property
    def patience(self) -> int:
        """Steps without a better complete text that end the search, or one of a chain's methods."""
        return self.stopping.patience

    @property
    def done(self) -> bool:
        """Whether the search was stopped or has nothing left to do, or a model has no room for more."""
        best = self.finished.best()
        value = None if best is None else best.value
        if self._stopped or (best is not None and self._continues_as_wanted(best.text)):
            return True
        if self.stopping.reached(self.seconds, self.exact_evaluations, value):
            return True
        return self.stage == len(self.method.stages) - 1 and self._stage_done

    def stop(self) -> None:
        """End the search after the current step: loops over it end, and ``run`` returns.

        A search in a run folder resumes where it was stopped.
        """
        self._stopped = True

    def _continues_as_wanted(self, text: str) -> bool:
        """Whether matches end the search, and the models continue this text with their targets."""
        if not self._targets:
            return False
        if text not in self._matches:
            found = all(term.matched(text) is not None for term in self._targets.values())
            self._matches = {text: found}
        return self._matches[text]

    @property
    def _stage_done(self) -> bool:
        own = self.method.stage_steps
        most = self.stopping.steps if own is None else own[self.stage]
        if not self.beams or self.stage_steps >= most or self.quiet_steps >= self.stopping.patience:
            return True
        return not (self.selector.waiting or self.proposer.has_room(self.beams))

    @property
    def best(self) -> Hypothesis:
        """The best complete text, or the best beam if there is none yet."""
        return self.texts.best(self.beams or [step.best for step in self.history[-1:]])

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
        if self.proposer.appends:
            self.weighing.weigh(self.prefix)
        best_before = self.finished.best()
        proposed = self.proposer.propose(self.beams)
        # Whatever a method does: no other text is scored, and so none is returned.
        proposals = [item for item in proposed.texts if item.text.startswith(self.prefix)]
        for number in proposed.ended:
            self.texts.end(self.beams[number])
        before = self.exact_evaluations
        children = self._score(proposals, proposed.scored)
        # A sentence that is complete and grows no more leaves the beams.
        appends = self.proposer.appends
        leaves = self.texts.sentences and appends
        children = [item for item in children if not (self.texts.add_if_complete(item, appends) and leaves)]
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

    def _fall_back(self, last: Sequence[Hypothesis]) -> None:
        """Return an unfinished text where the search has come to an end without a complete one."""
        scored = [item for item in last if item.terms]
        if not scored:
            raise ConfigError(
                f"no token can follow {self.prefix!r}: the constraints forbid all, or a model "
                "has no room; loosen the constraints or change the prefix"
            )
        self.texts.fallback = min(scored, key=lambda item: item.value)

    def _next_stage(self) -> None:
        complete = sorted(self.finished.values(), key=lambda item: item.value)
        given = (complete or self.beams or [self.best])[: self.strategy.width]
        self.stage += 1
        self.stage_steps = self.quiet_steps = 0
        self.proposer, self.selector = self.begin_stage()
        self.beams = self.proposer.start(given)

    def _score(self, proposals: Sequence[Proposal], before: KnownLosses) -> list[Hypothesis]:
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
            scored = self._score_fitting(proposals, before)
        except TextError:
            fitting = [item for item in proposals if self.objective.fits(item.text)]
            scored = self._score_fitting(fitting, before)
        if not again:
            return scored
        by_text = {item.text: item for item in (*self.beams, *scored)}
        return [*scored, *(replace(by_text[item.text], parent=item.text) for item in again)]

    def _score_fitting(self, proposals: Sequence[Proposal], before: KnownLosses) -> list[Hypothesis]:
        if not proposals:
            return []
        parents = [self.beams[item.parent].text if item.parent >= 0 else "" for item in proposals]
        losses = score_proposals(self.objective, proposals, parents, before, self.batch_size)
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
        self.texts.revalue(revalued)
        self.selector.revalue(revalued)

    def run(self) -> Result:
        """Take all steps and return the result."""
        for _ in self:
            pass
        return self.result()

    def result(self) -> Result:
        """The result so far; its value is scored from scratch.

        What is not as it was asked for, such as a required phrase that is missing, is logged as a warning.

        Raises:
            ConfigError: if there is not a text yet.
        """
        best = self.best
        if not best.text.strip():
            raise ConfigError("the search has no text yet; take a step first, or give a prefix")
        terms = self.objective.exact(best.text).terms
        value = self.weighing.value(terms)
        better = self.texts.incomplete if best.complete else None
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
            models=describe_models(self.objective, self.method),
            continuations=continuations(self.objective, best.text),
            satisfied=self.texts.satisfies(best),
            missing=tuple(self.constraints.missing(best.text)),
            incomplete=better if better is not None and better.value < value else None,
            ideal=self.weighing.ideal,
        )
        for note in result.notes:
            LOGGER.warning(note)
        return result
