"""Target continuation: a text is to make a language model go on with a given string."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.errors import TextError
from promptfuse.models import Batch, CausalLM, Model
from promptfuse.objectives.checks import read_texts, require_model_kind
from promptfuse.objectives.continuation import Continuation, GreedyDecoding
from promptfuse.objectives.endings import ContinuationTerm
from promptfuse.objectives.evaluator import Rows
from promptfuse.objectives.fluency import describe_start
from promptfuse.objectives.registry import terms
from promptfuse.objectives.settings import OfKind, Texts
from promptfuse.objectives.target_losses import TargetLossName, target_loss


@terms.register("TargetContinuation")
class TargetContinuation(ContinuationTerm):
    """How far a language model is from going on with a target after the text.

    By default the mean negative log-likelihood per token of the target, in nats: the loss of GCG (Zou et
    al., 2023, section 2.1), for any causal language model, be it the one that proposes words or another one
    with its own tokenizer. The model reads the text's own tokens, as it would before it goes on by itself,
    and then the target's; only those count. Of several targets the mean is taken.

    A prompt that stands before the text is the ``prefix``. With a model that was loaded with
    ``start="chat"``, prefix, text and suffix are the user's turn, and the target is the answer.

    Args:
        model: the causal language model.
        target: the string, or several; read as it stands, so it mostly begins with a blank.
        weight: see ``Term``.
        prefix: see ``Term``.
        suffix: what stands between the text and the target, before what the model's ``start`` has there.
        loss: what is made of the target's tokens:

            * ``nll``: the mean of their NLL;
            * ``mellowmax``: log(mean(exp(alpha x NLL))) / alpha, between the mean and the largest, so that
              the worst token counts most (Asadi and Littman, 2017, equation 1);
            * ``cw``: the mean of how far the best other token's logit is above the target's, at least
              -margin: zero or less where greedy decoding says the token (Carlini and Wagner, 2017, f6;
              Sitawarin et al., 2024, arXiv 2402.09674, section 4.2).
        alpha: of ``mellowmax``; nanoGCG's default is 1.
        margin: of ``cw``; GCG++'s default is 0.001.
        name: see ``Term``.

    Raises:
        TextError: if a target is empty.
        ConfigError: if there are none, there is no such loss, or a number is out of range.
    """

    def __init__(
        self,
        model: Annotated[Model, OfKind(CausalLM)],
        target: Texts,
        weight: float = 1.0,
        *,
        prefix: str = "",
        suffix: str = "",
        loss: TargetLossName = "nll",
        alpha: float = 1.0,
        margin: float = 0.001,
        name: str = "target",
    ) -> None:
        checked = require_model_kind(model, "TargetContinuation", CausalLM)
        self.loss = target_loss(loss, alpha, margin)
        super().__init__(checked, read_texts(target, "target"), weight, prefix, suffix, name)
        numbers = {"nll": {}, "mellowmax": {"alpha": alpha}, "cw": {"margin": margin}}[loss]
        self._loss_settings = {} if loss == "nll" else {"loss": loss, **numbers}
        self._own_suffix = suffix
        self.suffix += self.lm.closing

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        return super().describe() | describe_start(self.lm) | self._loss_settings

    def under(self, lm: CausalLM) -> TargetContinuation:
        """The same term under another language model, which may have its own start."""
        found = copy.copy(self)
        found._model, found.suffix = lm, self._own_suffix + lm.closing
        return found

    @staticmethod
    def check_settings(loss: TargetLossName, alpha: float, margin: float, **rest: Any) -> None:
        """Raise ``ConfigError`` if there is no such loss or a number is out of range."""
        del rest
        target_loss(loss, alpha, margin)

    @property
    def lm(self) -> CausalLM:
        """The language model."""
        return cast(CausalLM, self.model)

    def rows(self, texts: Sequence[str], cached: bool = False) -> Rows:
        """Token rows of texts, each with every target, and the ranges of the targets' tokens.

        Raises:
            TextError: also if there is nothing before a target that it could be predicted from.
        """
        rows, content = super().rows(texts, cached)
        for index, (start, stop) in enumerate(content):
            if start == 0:
                raise TextError(
                    f"{self.model.name} has no begin-of-text token, so an empty text has no continuation; "
                    "give at least one word"
                )
            if start == stop:
                target = self.endings[index % len(self.endings)]
                raise TextError(f"{self.model.name} has no tokens for the target {target!r}; give another")
        return rows, content

    def outputs(self, batch: Batch) -> Float[Tensor, " rows"]:
        """The loss of each target, (rows,)."""
        first = [start - 1 for start, _ in batch.text_spans]
        losses = self.lm.token_nll(batch, first, self.loss.tokens)
        columns = torch.arange(1, batch.ids.shape[1], device=losses.device)
        ranges = torch.tensor(batch.text_spans, device=losses.device)
        inside = (columns >= ranges[:, :1]) & (columns < ranges[:, 1:])
        return self.loss.combine(losses, inside)

    def matched(self, text: str) -> str | None:
        """The target with which greedy decoding continues a text; None if it says something else."""
        return self._greedy(text).matched()

    def continuation(self, text: str) -> Continuation:
        """How the model itself continues a text with the term's prefix and suffix.

        Raises:
            TextError: if the text with a target is longer than the model takes.
        """
        return self._greedy(text).continuation()

    def _greedy(self, text: str) -> GreedyDecoding:
        rows, content = self.rows([text])
        targets = [
            (target, row[start:stop])
            for target, row, (start, stop) in zip(self.endings, rows, content, strict=True)
        ]
        return GreedyDecoding(self.lm, rows[0][: content[0][0]], targets)

    def combine(self, outputs: Float[Tensor, "texts endings"]) -> Float[Tensor, " texts"]:
        """Their mean over the targets, (texts,), from (texts, targets)."""
        return outputs.mean(1)
