"""Fitting the maps: one pass over the words, whatever their number.

Words are grouped by n = max(n_A, n_B), zero-padded on the right to n sub-tokens in both models, and added
to the moments of their group. A tenth of them, chosen by a checksum of the word so that a word is always
on the same side, is held out: it chooses the ridge and gives the figures of the report, and joins the
others for the final fit.

Source: Williams and Kolter, arXiv 2408.04816, section 3.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from zlib import crc32

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from promptfuse.adapters.maps import Maps
from promptfuse.adapters.moments import Moments, Workspace
from promptfuse.adapters.protocols import EmbeddingModel, Progress
from promptfuse.adapters.report import AdapterReport, LengthReport
from promptfuse.adapters.ridge import held_out_errors
from promptfuse.errors import AdapterError
from promptfuse.text.segments import encode_words
from promptfuse.tproduct import t_product


@dataclass(frozen=True)
class FitConfig:
    """How an adapter is fitted.

    Attributes:
        weight_power: exponent of a word's frequency in its weight; 0 weighs all distinct words equally.
        ridges: penalties to choose from, relative to the mean eigenvalue of the gram, increasing.
        rcond: eigenvalues of the gram up to this times the largest count as zero. They are squares: 1e-12
            is a cut-off of 1e-6 on the singular values of the stacked embeddings.
        max_subtokens: the longest words that get their own map; longer ones share the positional map.
    """

    weight_power: float
    ridges: tuple[float, ...]
    rcond: float = 1e-12
    max_subtokens: int = 8


PRESETS: Mapping[str, FitConfig] = {
    # As published: the pseudo-inverse over distinct words.
    "paper": FitConfig(weight_power=0.0, ridges=(0.0,)),
    # Frequent words matter more in a text, but the maps are asked about rare ones too, so the frequency
    # counts by its fourth root. Half powers of ten from 1e-4 to 1e-2: a table explains so little of another
    # one that words held out call for more, but most words that a map is asked about are among those that
    # it was fitted on, and for them more is worse (docs/research/adapters.md).
    "default": FitConfig(weight_power=0.25, ridges=tuple(10.0 ** (k / 2) for k in range(-8, -3))),
}

_HELD_OUT = 10  # one word in so many
_FEWEST_JUDGES = 8  # held-out words; fewer say nothing about a ridge
_CHUNK = 2**14  # words that are spelled at once: bounds the memory that their tokens take as objects
_BATCH_NUMBERS = 2**21  # numbers per batch of embeddings and model: 16 MiB in double precision


def fit(
    model_a: EmbeddingModel,
    model_b: EmbeddingModel,
    preset: str,
    words: Mapping[str, float],
    progress: Progress | None,
) -> tuple[Maps, AdapterReport]:
    """Fit the maps from A's embeddings to B's and measure them.

    Args:
        model_a: the model that the maps start from.
        model_b: the model that they lead to.
        preset: a key of `PRESETS`.
        words: {word: frequency}; each word begins with one space, as in a text.
        progress: called after each batch.

    Raises:
        AdapterError: if the preset is unknown, or no word can be embedded by both models.
    """
    if preset not in PRESETS:
        raise AdapterError(f"there is no adapter preset {preset!r}; choose from {', '.join(sorted(PRESETS))}")
    config = PRESETS[preset]
    fitter = _Fitter(model_a.embedding_table, model_b.embedding_table, config, len(words), progress)
    counts: Counter[tuple[int, int]] = Counter()
    frequency: dict[int, float] = {}
    for chunk in _chunks(words):
        for group, lengths in _grouped(model_a, model_b, chunk, words, config):
            counts.update(lengths)
            frequency[group.n] = frequency.get(group.n, 0.0) + group.frequency
            fitter.stream(group)
        fitter.advance(len(chunk))
    if not counts:
        raise AdapterError(f"{model_a.name} and {model_b.name} share no word; give other words to fit on")
    members = {n: sum(count for pair, count in counts.items() if max(pair) == n) for n in frequency}
    pairs = fitter.pairs
    # The positional map is fitted on the words of every length, taken apart.
    apart = [pair if n > config.max_subtokens else pair.positional() for n, pair in pairs.items()]
    every = (counts.total(), list(pairs))
    positional, positional_report = fitter.solve(0, sum(apart[1:], apart[0]), *every, config.ridges[-1])
    by_length, reports = {}, []
    for n in sorted(n for n in pairs if n <= config.max_subtokens):
        found = fitter.solve(n, pairs[n], members[n], [n], positional_report.ridge)
        by_length[n] = found[0].float()
        reports.append(found[1])
    report = AdapterReport(
        model_a=model_a.name,
        model_b=model_b.name,
        preset=preset,
        words=dict(counts),
        lengths=tuple(reports),
        positional=positional_report,
        coverage=sum(frequency[n] for n in by_length) / sum(words.values()),
        skipped=len(words) - counts.total(),
    )
    return Maps(by_length, positional[..., 0].float()), report


@dataclass(frozen=True)
class _Group:
    """Words of one length n: their ids in both models, (words, n), weights, and whether they are held out."""

    n: int
    ids_a: Int[Tensor, "words n"]
    ids_b: Int[Tensor, "words n"]
    weights: Float[Tensor, " words"]
    held_out: Bool[Tensor, " words"]
    frequency: float

    def only_held_out(self) -> _Group:
        """The words that are held out."""
        chosen = self.held_out
        return _Group(
            self.n,
            self.ids_a[chosen],
            self.ids_b[chosen],
            self.weights[chosen],
            chosen[chosen],
            frequency=0.0,
        )


@dataclass(frozen=True)
class _Pair:
    """Moments of the words to fit on and of those held out."""

    fitted: Moments
    held_out: Moments

    def __add__(self, other: _Pair) -> _Pair:
        return _Pair(self.fitted + other.fitted, self.held_out + other.held_out)

    def positional(self) -> _Pair:
        return _Pair(self.fitted.positional(), self.held_out.positional())


def _chunks(words: Mapping[str, float]) -> Iterator[list[str]]:
    """The words, some thousand at a time."""
    texts = iter(words)
    while chunk := list(islice(texts, _CHUNK)):
        yield chunk


def _grouped(
    model_a: EmbeddingModel,
    model_b: EmbeddingModel,
    chunk: Sequence[str],
    words: Mapping[str, float],
    config: FitConfig,
) -> Iterator[tuple[_Group, list[tuple[int, int]]]]:
    """Some words by length, each group with its words' (n_A, n_B).

    Words that a model cannot embed are in none.
    """
    spelled = [_spell(model, chunk) for model in (model_a, model_b)]
    members: dict[int, list[tuple[str, tuple[int, ...], tuple[int, ...]]]] = {}
    for text, a, b in zip(chunk, *spelled, strict=True):
        if a and b:
            members.setdefault(max(len(a), len(b)), []).append((text, a, b))
    for n, entries in members.items():
        group = _Group(
            n,
            pad_words([ids_a for _, ids_a, _ in entries], n).int(),
            pad_words([ids_b for _, _, ids_b in entries], n).int(),
            torch.tensor([words[text] ** config.weight_power for text, _, _ in entries], dtype=torch.float64),
            torch.tensor([crc32(text.encode()) % _HELD_OUT == 0 for text, _, _ in entries]),
            sum(words[text] for text, _, _ in entries),
        )
        yield group, [(len(a), len(b)) for _, a, b in entries]


def _spell(model: EmbeddingModel, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Ids of words, none where the model has no embedding of one: no token, no row, or the unknown token."""
    rows, unknown = len(model.embedding_table), model.tokenizer.unk_token_id
    spelled = encode_words(model.tokenizer, texts)
    return [() if ids is None or unknown in ids or max(ids) >= rows else ids for ids in spelled]


class _Fitter:
    """Streams words through two embedding tables.

    Attributes:
        pairs: the moments so far, by length.
        held_out: ids of the words held out, by length: all that is kept of the words.
    """

    def __init__(
        self,
        table_a: Float[Tensor, "rows_a d_a"],
        table_b: Float[Tensor, "rows_b d_b"],
        config: FitConfig,
        total: int,
        progress: Progress | None,
    ) -> None:
        self.table_a, self.table_b = table_a, table_b
        self.config = config
        self.total, self.done = total, 0
        self.progress = progress
        self.pairs: dict[int, _Pair] = {}
        self.held_out: dict[int, list[_Group]] = {}
        self.workspace = Workspace()
        # Double precision is not to be had on every kind of accelerator.
        self.device = table_a.device if table_a.is_cuda else torch.device("cpu")

    def stream(self, group: _Group) -> None:
        """Add a group to the moments; its positions taken apart where it is too long for a map of its own."""
        n = group.n if group.n <= self.config.max_subtokens else 1
        if group.n not in self.pairs:
            widths = (self.table_a.shape[1], self.table_b.shape[1])
            self.pairs[group.n] = _Pair(*(Moments(*widths, n, self.device, self.workspace) for _ in range(2)))
        pair = self.pairs[group.n]
        for moments, chosen in ((pair.fitted, ~group.held_out), (pair.held_out, group.held_out)):
            for x, y, weights in self._batches(group, chosen):
                apart = group.n // n
                moments.update(_apart(x, n), _apart(y, n), weights.repeat_interleave(apart))
        self.held_out.setdefault(group.n, []).append(group.only_held_out())

    def advance(self, words: int) -> None:
        """Report progress."""
        self.done += words
        if self.progress is not None:
            self.progress(self.done, self.total)

    def solve(
        self, n: int, pair: _Pair, words: int, lengths: Sequence[int], ridge: float
    ) -> tuple[Float[Tensor, "d_a d_b _"], LengthReport]:
        """The map for words of n sub-tokens, 0 for the positional one, and its report.

        Args:
            n: sub-tokens.
            pair: the words' moments.
            words: how many they are.
            lengths: how long they are.
            ridge: for the case that there is nothing to choose, or too few words to judge by.
        """
        groups = [group for length in lengths for group in self.held_out[length]]
        fitted, held_out = pair.fitted, pair.held_out
        ridges, rcond = self.config.ridges, self.config.rcond
        r2, cosine = None, None
        scale = fitted.scale()
        if len(ridges) > 1 and fitted.words and held_out.words >= _FEWEST_JUDGES:
            errors = held_out_errors(fitted, held_out, [scale * value for value in ridges], rcond)
            ridge = ridges[min(range(len(ridges)), key=errors.__getitem__)]
        if fitted.words and held_out.words:
            g = fitted.solve(scale * ridge, rcond)
            variance = held_out.variance()
            r2 = 1.0 - held_out.squared_error(g) / variance if variance > 0 else None
            cosine = self._cosine(g, groups)
        both = fitted + held_out
        report = LengthReport(
            n=n,
            words=words,
            held_out=sum(len(group.ids_a) for group in groups),
            ridge=ridge,
            r2=r2,
            cosine=cosine,
        )
        return both.solve(both.scale() * ridge, rcond), report

    def _cosine(self, g: Float[Tensor, "d_a d_b n"], groups: Sequence[_Group]) -> float:
        """Weighted mean cosine between mapped and true embeddings of the words held out."""
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for group in groups:
            for x, y, weights in self._batches(group, group.held_out):
                n = g.shape[-1]
                # Positions that the map takes apart are put together again: the cosine is a word's.
                mapped = t_product(_apart(x, n), g).reshape(len(x), -1, y.shape[1], n)
                true = _apart(y, n).reshape(mapped.shape)
                cosines = F.cosine_similarity(mapped.flatten(1), true.flatten(1))
                total += torch.stack([(weights * cosines).sum(), weights.sum()])
        return float(total[0] / total[1])

    def _batches(
        self, group: _Group, chosen: Bool[Tensor, " words"]
    ) -> Iterator[tuple[Float[Tensor, "N d_a n"], Float[Tensor, "N d_b n"], Float[Tensor, " N"]]]:
        """Embeddings (N, d_A, n) and (N, d_B, n), with weights (N,), in double precision."""
        widest = max(self.table_a.shape[1], self.table_b.shape[1])
        size = max(64, _BATCH_NUMBERS // (widest * group.n))
        rows = chosen.nonzero()[:, 0]
        for first in range(0, len(rows), size):
            part = rows[first : first + size]
            x = embed_words(self.table_a, group.ids_a[part])
            y = embed_words(self.table_b, group.ids_b[part])
            yield x.to(self.device).double(), y.to(self.device).double(), group.weights[part].to(self.device)


def pad_words(rows: Sequence[Sequence[int]], n: int) -> Int[Tensor, "{len(rows)} {n}"]:
    """Ids of words, (N, n), padded with -1 on the right: always there, whatever the length and the model."""
    return torch.tensor([[*row, *[-1] * (n - len(row))] for row in rows], dtype=torch.long).reshape(-1, n)


def embed_words(table: Float[Tensor, "rows d"], padded: Int[Tensor, "N n"]) -> Float[Tensor, "N d n"]:
    """Embeddings of padded words, zero at the padding.

    Args:
        table: (vocabulary, d).
        padded: (N, n), see `pad_words`.

    Returns:
        (N, d, n).
    """
    padded = padded.to(table.device).long()
    embedded = table[padded.clamp(min=0)] * (padded >= 0)[..., None]
    return embedded.transpose(1, 2)


def _apart(x: Float[Tensor, "_ d _"], n: int) -> Float[Tensor, "_ d {n}"]:
    """(N, d, m) as it is where m = n; else, for n = 1, every position as a row of its own, (N m, d, 1)."""
    if x.shape[-1] == n:
        return x
    return x.transpose(1, 2).reshape(-1, x.shape[1], 1)
