"""What a search saves after every step, and how it resumes from that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.search.arguments import describe_settings
from promptfuse.search.complete import CompleteTexts
from promptfuse.search.constraints import Constraints
from promptfuse.search.hypothesis import Hypothesis, Step
from promptfuse.search.methods.base import Method
from promptfuse.search.methods.proposer import Proposer
from promptfuse.search.resume import require_resumable
from promptfuse.search.scalarizer import Scalarizer
from promptfuse.search.stopping import Stopping
from promptfuse.search.strategies import Selector, Strategy


class Resumable(ABC):
    """The settings of a search and how far it is, as plain values."""

    method: Method
    strategy: Strategy
    constraints: Constraints
    stopping: Stopping
    weighing: Scalarizer
    complete: bool
    prefix: str
    glue: bool
    seed: int
    texts: CompleteTexts
    proposer: Proposer
    selector: Selector
    beams: list[Hypothesis]
    history: list[Step]
    exact_evaluations: int
    seconds: float
    stage: int
    stage_steps: int
    quiet_steps: int
    described: dict[str, dict[str, Any]]

    @abstractmethod
    def begin_stage(self) -> tuple[Proposer, Selector]:
        """The current method's proposer and the strategy's selector, as they are before their first step."""

    @property
    def config(self) -> dict[str, Any]:
        """The settings, as plain values."""
        return {
            "method": self.method.describe(),
            "strategy": describe_settings(self.strategy),
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
            "objective": self.described,
            "beams": [item.to_dict() for item in self.beams],
            **self.texts.state_dict(),
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
            require_resumable(state, self.config, self.described)
            self._restore(state)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError):
            raise ConfigError("the saved search is damaged or of another version; start again") from None

    def _restore(self, state: dict[str, Any]) -> None:
        self.stage = state["stage"]
        self.proposer, self.selector = self.begin_stage()
        self.beams = [Hypothesis.from_dict(item) for item in state["beams"]]
        self.texts.load_state_dict(state)
        self.history = [Step.from_dict(step) for step in state["history"]]
        self.exact_evaluations = state["exact_evaluations"]
        self.seconds = state["seconds"]
        self.stage_steps = state["stage_steps"]
        self.quiet_steps = state["quiet_steps"]
        self.weighing.load_state_dict(state["weighing"])
        self.selector.load_state_dict(state["selector"])
        self.proposer.load_state_dict(state["proposer"])
