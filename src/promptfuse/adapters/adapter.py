"""The adapter: linear maps between the input embeddings of two models, word by word.

It is used in the backward pass only. In the forward pass a text is decoded and encoded again, which is exact.

Source: Williams and Kolter, "FUSE-ing Language Models", arXiv 2408.04816.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from promptfuse.adapters import files
from promptfuse.adapters.cache import adapter_folder, other_folders
from promptfuse.adapters.fit import fit
from promptfuse.adapters.maps import Maps
from promptfuse.adapters.protocols import EmbeddingModel, Progress
from promptfuse.adapters.report import AdapterReport
from promptfuse.adapters.words import checked_weights, common_words, count_words
from promptfuse.errors import AdapterError

LOGGER = logging.getLogger(__name__)
"""Where notices about cached adapters go."""


class Adapter:
    """Maps from model A's embeddings to model B's.

    Make one with `for_models`, `fit` or `from_pretrained`.

    Args:
        maps: the maps.
        fingerprints: of A and of B.
        report: how the maps were fitted and how good they are.

    Attributes:
        maps: the maps.
        fingerprints: of the embedding table and tokenizer of A and of B.
    """

    def __init__(self, maps: Maps, fingerprints: tuple[str, str], report: AdapterReport) -> None:
        self.maps = maps
        self.fingerprints = fingerprints
        self._report = report

    @classmethod
    def fit(
        cls,
        model_a: EmbeddingModel,
        model_b: EmbeddingModel,
        preset: str = "default",
        words: Mapping[str, float] | Path | str | Iterable[Path | str] | None = None,
        progress: Progress | None = None,
    ) -> Adapter:
        """Fit an adapter from A to B.

        Args:
            model_a: the model whose tokens are searched.
            model_b: the model whose gradients are carried to A.
            preset: ``"default"`` (ridge chosen on held-out words, frequency weights) or ``"paper"``
                (pseudo-inverse with a cut-off of 1e-6, equal weights of all distinct words).
            words: {word: frequency}, such as `english_words` gives, or UTF-8 text files whose words are
                counted: the path of one, or several paths. By default the words of both vocabularies, with
                most of the weight on those of A's tokens.
            progress: called with the number of words done and the total.

        Raises:
            AdapterError: if the preset is unknown, a file unreadable, or no word is common to both.
        """
        if words is None:
            weights: Mapping[str, float] = common_words(model_a.tokenizer, model_b.tokenizer)
        elif isinstance(words, Mapping):
            weights = checked_weights(words)
        else:
            weights = count_words(words)
        maps, report = fit(model_a, model_b, preset, weights, progress)
        return cls(maps, (model_a.fingerprint, model_b.fingerprint), report)

    @classmethod
    def for_models(
        cls,
        model_a: EmbeddingModel,
        model_b: EmbeddingModel,
        preset: str = "default",
        progress: Progress | None = None,
    ) -> Adapter:
        """Load the adapter from A to B from the cache, or fit it on the models' own words and cache it.

        The cache is the folder ``adapters`` in ``PROMPTFUSE_CACHE``, or in the user's cache folder. A cached
        adapter that is damaged or belongs to another table, tokenizer or setting is not used: a new one is
        fitted, with a notice in the log.

        Args:
            model_a: the model whose tokens are searched.
            model_b: the model whose gradients are carried to A.
            preset: ``"default"`` or ``"paper"``.
            progress: called with the number of words done and the total, if an adapter is fitted.

        Raises:
            AdapterError: if the preset is unknown, or no word is common to both.
        """
        folder = adapter_folder(model_a, model_b, preset)
        try:
            adapter = cls.cached(model_a, model_b, preset)
        except AdapterError as error:
            LOGGER.warning("%s", f"{error}: fitting it again")
            adapter = None
        else:
            if adapter is None and other_folders(folder):
                LOGGER.warning(
                    "%s",
                    f"the cached adapter {model_a.name} -> {model_b.name} belongs to another embedding "
                    "table, tokenizer or setting: fitting a new one",
                )
        if adapter is None:
            adapter = cls.fit(model_a, model_b, preset, progress=progress)
            try:
                adapter.save(folder, own=True)
            except AdapterError as error:  # It costs the time of the next fit, nothing else.
                LOGGER.warning("%s", f"{error}; it is used without being cached")
        return adapter

    @classmethod
    def cached(
        cls, model_a: EmbeddingModel, model_b: EmbeddingModel, preset: str = "default"
    ) -> Adapter | None:
        """The cached adapter from A to B; None if there is none.

        Args:
            model_a: the model whose tokens are searched.
            model_b: the model whose gradients are to be carried to A.
            preset: ``"default"`` or ``"paper"``; what they mean is said at `fit`.

        Raises:
            AdapterError: if there is one that is damaged or belongs to other models, or no such preset.
        """
        folder = adapter_folder(model_a, model_b, preset)
        if not files.present(folder):
            return None
        adapter = cls.from_pretrained(folder)
        adapter.verify(model_a, model_b)
        if (found := adapter.report().preset) != preset:
            raise AdapterError(
                f"the adapter in {str(folder)!r} was fitted with the preset {found}, not {preset}; "
                "fit it again with Adapter.fit"
            )
        return adapter

    def report(self) -> AdapterReport:
        """How the adapter was fitted and how good it is."""
        return self._report

    def push(
        self, x_a: Float[Tensor, "*_"], n_a: Sequence[int], n_b: Sequence[int]
    ) -> Float[Tensor, "batch {sum(n_b)} d_b"]:
        """Map A's embeddings of a text to approximations of B's.

        Args:
            x_a: (batch, sum(n_a), d_A), A's embeddings of the text's segments in order.
            n_a: sub-tokens of each segment in A.
            n_b: sub-tokens of each segment in B.

        Returns:
            (batch, sum(n_b), d_B).
        """
        return self.maps.push(x_a, n_a, n_b)

    def pull(
        self, gradient_b: Float[Tensor, "*_"], n_a: Sequence[int], n_b: Sequence[int]
    ) -> Float[Tensor, "batch {sum(n_a)} d_a"]:
        """Carry gradients at B's embeddings of a text to A's.

        Args:
            gradient_b: (batch, sum(n_b), d_B), the gradients at B's embeddings.
            n_a: sub-tokens of each segment in A.
            n_b: sub-tokens of each segment in B.

        Returns:
            (batch, sum(n_a), d_A).
        """
        return self.maps.pull(gradient_b, n_a, n_b)

    def verify(self, model_a: EmbeddingModel, model_b: EmbeddingModel) -> None:
        """Check that the adapter belongs to these models.

        Raises:
            AdapterError: if it was fitted on another embedding table or tokenizer.
        """
        for model, fingerprint in zip((model_a, model_b), self.fingerprints, strict=True):
            if model.fingerprint != fingerprint:
                raise AdapterError(
                    f"the adapter {self._report.model_a} -> {self._report.model_b} was fitted on another "
                    f"embedding table or tokenizer than that of {model.name}; fit it again with Adapter.fit"
                )

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the adapter to a folder as safetensors and JSON, replacing an adapter there.

        Raises:
            AdapterError: if the folder cannot be written to, or its ``adapter.json`` is not an adapter's.
        """
        self.save(Path(folder))

    def save(self, folder: Path, *, own: bool = False) -> None:
        """Write the adapter to a folder.

        Args:
            folder: where to write it.
            own: whether the folder is the cache's own, in which damaged files are replaced too.

        Raises:
            AdapterError: as for `save_pretrained`.
        """
        tensors = {f"map.{n}": g for n, g in self.maps.by_length.items()}
        tensors["positional"] = self.maps.positional
        description = {"fingerprints": list(self.fingerprints), "report": self._report.to_json()}
        files.write(folder, tensors, description, own=own)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Adapter:
        """Read an adapter from a folder; `verify` checks that it belongs to its models.

        Raises:
            AdapterError: if there is no adapter, or it is damaged.
        """
        tensors, description = files.read(Path(folder))
        positional = tensors.pop("positional")
        by_length = {int(name.removeprefix("map.")): g for name, g in tensors.items()}
        fingerprint_a, fingerprint_b = description["fingerprints"]
        report = AdapterReport.from_json(description["report"])
        return cls(Maps(by_length, positional), (fingerprint_a, fingerprint_b), report)
