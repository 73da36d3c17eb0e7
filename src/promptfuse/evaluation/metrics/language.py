"""How fluent captions are for a named language model, and what a named classifier says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from promptfuse.evaluation.metrics.base import Captions, Column, Floats, Metric, Sums, Unavailable, mean
from promptfuse.evaluation.metrics.encoding import BATCH, cut_note, fitting, read_in_batches
from promptfuse.models import Batch, CausalLM, Model, SequenceClassifier
from promptfuse.objectives.checks import require_model_kind


class Perplexity(Metric):
    """Perplexity of the captions under a causal language model, per word and per token.

    Of the corpus it is exp(summed NLL / words), not the mean of the captions' own. Per word it can be
    compared between models with other tokenizers; words are what blanks part. The end of a caption is not
    predicted, and the first token only by models with a begin-of-text token; without one the first word
    counts neither in the sum nor among the words. Of a caption that is longer than the model reads, both are
    of the words up to there; one whose first word is too long counts by its tokens alone. A text that ends
    early or repeats itself has a low perplexity, so this does not measure how good captions are.

    Args:
        model: a causal language model.
        batch_size: texts at a time.

    Raises:
        ModelError: if the model is of another kind.
    """

    titles: ClassVar[Mapping[str, str]] = {
        "perplexity_word": "perplexity / word",
        "perplexity_token": "perplexity / token",
    }

    def __init__(self, model: Model, *, batch_size: int = BATCH) -> None:
        self.model = cast(CausalLM, require_model_kind(model, "perplexity", CausalLM))
        self.batch_size = batch_size

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """Both columns; a caption of which nothing is predicted, such as an empty one, has no value."""
        given = [index for index, text in enumerate(captions.texts) if text.strip()]
        if not given:
            return self.unavailable("all captions are empty")
        texts, long = fitting(self.model, [captions.texts[index].strip() for index in given])
        read, parted = read_in_batches(self.model, texts, self._read, self.batch_size)
        nll, tokens = np.zeros(len(captions.texts)), np.zeros(len(captions.texts))
        nll[given], tokens[given] = read.numpy().T
        words = np.zeros(len(captions.texts))
        words[given] = [len(text.split()) for text in texts]
        of_words = nll.copy()
        if not self.model.start_ids:
            # The first token is not predicted, so that the first word counts on neither side.
            firsts, _ = read_in_batches(
                self.model, [text.split()[0] for text in texts], self._read, self.batch_size
            )
            of_words[given] -= firsts.numpy()[:, 0]
            words[given] -= 1
        words[tokens == 0] = 0  # Nothing is predicted of a character that the tokenizer leaves out.
        for index in parted:
            # Not even the first word is read to its end: the sum is of no word.
            of_words[given[index]] = words[given[index]] = 0
        cut = [given[index] for index in long]
        note = cut_note(cut, self.model)
        parts = {"perplexity_word": (of_words, words), "perplexity_token": (nll, tokens)}
        return [_perplexity(name, self.titles[name], *part, note, cut) for name, part in parts.items()]

    def _read(self, batch: Batch) -> Tensor:
        """Summed NLL and tokens predicted of the captions' own tokens, (rows, 2)."""
        return torch.stack(self.model.content_nll(batch), dim=1)


def _perplexity(name: str, title: str, nll: Floats, counts: Floats, note: str, cut: Sequence[int]) -> Sums:
    parts = np.stack([nll, counts], axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return Sums(name, title, "lower", _exp_ratio(parts), parts, _exp_ratio, note=note, cut=frozenset(cut))


def _exp_ratio(sums: Floats) -> Floats:
    """Exp of the first sum over the second, NaN where that is zero."""
    result: Floats = np.exp(sums[:, 0] / sums[:, 1])
    return result


class LabelAccuracy(Metric):
    """The share of captions whose likeliest label under a classifier is the one that was asked for.

    Args:
        model: a sequence classifier.
        label: one of its labels, case does not matter; None: the column says that none is given.
        batch_size: texts at a time.

    Raises:
        ModelError: if the model is of another kind.
        ConfigError: if the model has no such label.
    """

    titles: ClassVar[Mapping[str, str]] = {"sentiment_accuracy": "sentiment accuracy"}

    def __init__(self, model: Model, label: str | None, *, batch_size: int = BATCH) -> None:
        self.model = cast(
            SequenceClassifier, require_model_kind(model, "sentiment accuracy", SequenceClassifier)
        )
        self.index = None if label is None else self.model.label_index(label)
        self.batch_size = batch_size

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """The share of captions with the label; empty captions count as wrong."""
        if self.index is None:
            known = ", ".join(self.model.labels)
            return self.unavailable(f"no label given; choose one of {self.model.name}'s: {known}")
        found, cut = read_in_batches(
            self.model, captions.texts, self.model.log_probabilities, self.batch_size
        )
        right = (found.argmax(1) == self.index).double().numpy()
        # A classifier labels an empty text too, but that says nothing of a caption.
        right[[not text.strip() for text in captions.texts]] = 0.0
        title = f"{self.model.labels[self.index].lower()} accuracy"
        note = cut_note(cut, self.model)
        return [mean("sentiment_accuracy", title, "higher", right, note=note, cut=cut)]
