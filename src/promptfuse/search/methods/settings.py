"""Settings of the proposal methods: one flat, frozen dataclass each.

Methods that append grow a text word by word and end it; methods that edit change whole texts. Where the
defaults are not the paper's, the docstring says so and why. How many steps a search takes is not a
method's setting but the search's (``Stopping``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from promptfuse.errors import ConfigError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _at_least(name: str, number: float, least: int = 1) -> None:
    _require(number >= least, f"{name}: {number} is too few; give {least} or more")


Transports = Literal["lexical", "t-product", "t-product-paper"]
"""How gradients of other models come to the primary's tokens: by the exact sub-tokens of each word,
through an adapter fitted with our defaults, or through one fitted as the paper's."""


def _transport(name: str) -> None:
    _require(
        name in (*get_args(Transports), "none"),
        f"transport: {name!r} is unknown; choose lexical, t-product, t-product-paper or none",
    )


@dataclass(frozen=True)
class AutoDAN:
    """Left-to-right search: append the token that the language model and the gradients like best.

    After Zhu et al. (2023), "AutoDAN", as Williams & Kolter (2024, section 4) use it: candidates are
    ranked by the language model's log-probability and the gradients that the adapter carries over,
    and the best of them are scored exactly. Every term counts with its weight and the weight's sign: with
    a negative weight of the fluency, unlikely tokens are candidates.

    Attributes:
        candidates: exact evaluations per beam and step. The paper's number is 256.
        transport: what carries gradients to the primary's tokens: ``lexical`` (exact sub-tokens of
            each word; our default, since it points better than the map), ``t-product``,
            ``t-product-paper`` (the paper's), or ``none`` (the language model alone proposes).
        gain: the starting factor on estimated changes. The linear estimate overshoots, so it is
            shrunk; the paper uses it whole (1.0), which ranks worse than no gradient at all here.
        adapt_gain: refit the factor from the true changes seen so far.
        subtokens: the longest word in secondary tokens whose positions have gradients of their own.
        probe_temperature: the placeholder is the expected next word under the language model's
            distribution at this temperature; flatter estimates better than 1.
        probe: a word to stand there instead, such as ``the``, which estimates worse; it has to be a single
            token of the language model.
        ridge: correct the estimates by a ridge regression of what the search has seen of the true changes
            on the words' embeddings (``Surrogate``), with this penalty in units of their mean squared norm;
            None for no correction. It helps where a loss is far from linear, as a sentence encoder's is.
        openings: the most noun phrases that a text may begin with, scored exactly in the first step: of a
            built-in English list those that the terms of similarity, such as a photo's, like best, as far
            as there are beams that the first words leave free. A word of many tokens, or one that the
            language model holds for rare, is found so; 0 for none.
    """

    candidates: int = 256
    transport: Transports | Literal["none"] = "lexical"
    gain: float = 0.2
    adapt_gain: bool = True
    subtokens: int = 2
    probe_temperature: float = 3.0
    probe: str | None = None
    ridge: float | None = None
    openings: int = 0

    def __post_init__(self) -> None:
        _at_least("candidates", self.candidates)
        _at_least("openings", self.openings, 0)
        _transport(self.transport)
        _require(0 <= self.gain <= 10, f"gain: {self.gain} is out of range; give 0 to 10")
        _require(1 <= self.subtokens <= 8, f"subtokens: {self.subtokens} is out of range; give 1 to 8")
        _require(
            self.ridge is None or 1e-6 <= self.ridge < float("inf"),
            f"ridge: {self.ridge} is out of range; give 1e-6 or more, or none",
        )
        _require(
            0 < self.probe_temperature <= 100,
            f"probe_temperature: {self.probe_temperature} is out of range; give a number above 0",
        )


@dataclass(frozen=True)
class RandomAppend:
    """Left-to-right search with tokens drawn uniformly: the baseline that knows nothing.

    Attributes:
        candidates: exact evaluations per beam and step.
    """

    candidates: int = 256

    def __post_init__(self) -> None:
        _at_least("candidates", self.candidates)


@dataclass(frozen=True)
class GCG:
    """Greedy coordinate gradient: swap single tokens that the gradient points to.

    Zou et al. (2023), arXiv 2307.15043, algorithm 1. The gradient of the objective with respect to the
    one-hot tokens names the ``top_k`` best swaps at every position; ``batch`` of all these are drawn
    uniformly and scored exactly, and the best replaces the text, even if it is worse.

    Where it differs: swaps are drawn without replacement; only those are scored whose text reads back to
    the same tokens and keeps the constraints; the gradient of a term under another model comes through a
    transport (Williams & Kolter, 2024). The paper takes 500 steps.

    Attributes:
        init: the text that is changed, behind the search's prefix; the paper's is twenty marks.
        top_k: swaps at each position that may be drawn.
        batch: texts scored exactly per beam and step.
        transport: ``lexical`` (exact for tokens that are whole words; a swap of another kind is taken to
            change the term as the average one), ``t-product``, ``t-product-paper``, or ``none``.
    """

    init: str = "! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! !"
    top_k: int = 256
    batch: int = 512
    transport: Transports | Literal["none"] = "lexical"

    def __post_init__(self) -> None:
        _require(bool(self.init.strip()), "init: the text to begin with is empty; give at least one token")
        _at_least("top_k", self.top_k)
        _at_least("batch", self.batch)
        _transport(self.transport)


@dataclass(frozen=True)
class PEZ:
    """Projected gradient on soft embeddings: hard prompts made easy.

    Wen et al. (2023), arXiv 2302.03668, algorithm 1. Each beam has continuous embeddings of its own. The
    gradient is taken at their projection, the nearest token of each by cosine as in the authors' code,
    and applied to the continuous embeddings with AdamW. The text is the projection.

    Where it differs: a projection reads back to the same tokens, or those at fault become the nearest
    tokens that are whole words; a step lasts until the projection is another text that keeps the
    constraints, since nothing else is there to be scored, or for ``updates`` updates (the paper's step
    is one update; it takes 3,000 of them). The gradient of a term under another model comes through the
    t-product map (Williams & Kolter, 2024, section 4).

    Attributes:
        length: tokens of the prompt; they begin as words drawn at random.
        init: a text to begin with in their place.
        lr: AdamW's learning rate.
        weight_decay: AdamW's decoupled decay.
        updates: the most updates in a step.
        transport: ``t-product``, ``t-product-paper``, or ``none`` to follow the primary's terms alone.
    """

    length: int = 16
    init: str | None = None
    lr: float = 0.1
    weight_decay: float = 0.1
    updates: int = 16
    transport: Literal["t-product", "t-product-paper", "none"] = "t-product"

    def __post_init__(self) -> None:
        _at_least("length", self.length)
        _at_least("updates", self.updates)
        _require(0 < self.lr < 1e3, f"lr: {self.lr} is out of range; give a number above 0")
        _require(
            0 <= self.weight_decay < 10, f"weight_decay: {self.weight_decay} is out of range; give 0 to 10"
        )
        _require(
            self.transport in ("t-product", "t-product-paper", "none"),
            f"transport: {self.transport!r} carries no gradient to soft embeddings; choose t-product, "
            "t-product-paper or none",
        )


@dataclass(frozen=True)
class RandomSearch:
    """Random changes within a ball around a text, keeping the best: gradient-free search.

    In the ``l0`` ball, 1 to ``radius`` tokens are replaced by others drawn uniformly. In the ``l2`` ball,
    a random vector is added to the primary's embeddings of all tokens together, and each becomes the
    nearest token. There the radius is a root mean square over the tokens, in units of the mean distance
    between a token's embedding and the nearest other one.

    Attributes:
        ball: ``l0`` or ``l2``.
        radius: its size; for the ``l2`` ball 3 to 4 changes a few tokens of a text.
        candidates: texts scored exactly per beam and step.
        length: tokens of the text that is changed; they begin as words drawn at random.
        init: a text to begin with in their place.
    """

    ball: Literal["l0", "l2"] = "l0"
    radius: float = 2.0
    candidates: int = 256
    length: int = 8
    init: str | None = None

    def __post_init__(self) -> None:
        _require(self.ball in ("l0", "l2"), f"ball: {self.ball!r} is unknown; choose l0 or l2")
        _require(0 < self.radius < 1e6, f"radius: {self.radius} is out of range; give a number above 0")
        _require(
            self.ball == "l2" or self.radius >= 1,
            f"radius: {self.radius} changes no token; give 1 or more for the l0 ball",
        )
        _at_least("candidates", self.candidates)
        _at_least("length", self.length)


@dataclass(frozen=True)
class Polish:
    """Replace, insert or delete one word at a time, keeping improvements only.

    New words are those that the language model finds likely behind what stands before them (unlikely, if
    fluency has a negative weight). A text that no candidate improves is tried again with further words.

    Attributes:
        candidates: texts scored exactly per beam and step, dealt out over all places.
        moves: any of ``replace``, ``insert`` and ``delete``.
        init: a text to begin with; needed where there is neither a prefix nor a method before it.
    """

    candidates: int = 256
    moves: tuple[str, ...] = ("replace", "insert", "delete")
    init: str | None = None

    def __post_init__(self) -> None:
        _at_least("candidates", self.candidates)
        object.__setattr__(self, "moves", tuple(self.moves))
        known = ("replace", "insert", "delete")
        _require(
            bool(self.moves) and set(self.moves) <= set(known),
            f"moves: {self.moves} are not known moves; choose from: {', '.join(known)}",
        )


Single = AutoDAN | RandomAppend | GCG | PEZ | RandomSearch | Polish
"""A method by itself."""


@dataclass(frozen=True, init=False)
class Chain:
    """Methods one behind the other: each goes on from the best texts of the one before.

        Chain(AutoDAN(candidates=64), Polish(), steps=(16, 8))

    Attributes:
        methods: the methods in order; a chain among them is flattened.
        steps: the most steps of each; None for those of the search's ``Stopping``.
    """

    methods: tuple[Single, ...]
    steps: tuple[int, ...] | None

    def __init__(self, *methods: Single | Chain, steps: tuple[int, ...] | list[int] | None = None) -> None:
        flat: list[Single] = []
        for method in methods:
            if isinstance(method, Chain):
                _require(
                    method.steps is None,
                    "steps: give them to the outermost chain alone, one number for each method",
                )
                flat.extend(method.methods)
            else:
                flat.append(method)
        _require(bool(flat), "a chain needs at least one method")
        if steps is not None:
            _require(
                len(steps) == len(flat),
                f"steps: {len(steps)} numbers for {len(flat)} methods; give one for each",
            )
            for number in steps:
                _at_least("steps", number)
        object.__setattr__(self, "methods", tuple(flat))
        object.__setattr__(self, "steps", None if steps is None else tuple(steps))


Method = Single | Chain
"""Any method."""


def describe_method(method: Method) -> dict[str, Any]:
    """The settings with the method's name, as plain values."""
    if isinstance(method, Chain):
        parts = [describe_method(part) for part in method.methods]
        return {"name": "Chain", "methods": parts, "steps": method.steps}
    return {"name": type(method).__name__, **asdict(method)}
