"""METEOR and SPICE: Java programs that pycocoevalcap carries."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from promptfuse._utils.paths import cache_root
from promptfuse.evaluation.metrics.base import Captions, Column, Floats, Metric, Sums, Unavailable, mean
from promptfuse.evaluation.metrics.java import JavaError, find_java, package_folder, run_java
from promptfuse.evaluation.metrics.registry import metrics
from promptfuse.evaluation.metrics.tokens import Tokens

NO_JAVA = "no java command found; install a Java runtime, version 8 or later"


class _JavaMetric(Metric):
    """A metric that a Java program computes, which is stopped after some time."""

    needs_references: ClassVar[bool] = True

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """The column, or why it cannot be had: there is no Java, or its program fails or takes too long."""
        folder = package_folder()
        if find_java() is None:
            return self.unavailable(NO_JAVA)
        try:
            return [self._compute(folder, captions.tokens)]
        except JavaError as error:
            return self.unavailable(str(error))

    @abstractmethod
    def _compute(self, folder: Path, tokens: Tokens) -> Column:
        """The column; ``folder`` is that of pycocoevalcap."""


@metrics.register("meteor")
class Meteor(_JavaMetric):
    """METEOR 1.5 of the corpus (Denkowski & Lavie 2014), English parameters, normalised.

    The corpus's number comes from summed counts; it is not the mean of the captions' own.

    Args:
        seconds: after so long Java is stopped; None for five minutes and a second for every ten captions.
    """

    titles: ClassVar[Mapping[str, str]] = {"meteor": "METEOR"}

    def _compute(self, folder: Path, tokens: Tokens) -> Column:
        # A java command may be there and not work: tell its own reason.
        run_java(["-version"], seconds=60)
        rows = []
        with _meteor(300 + len(tokens.texts) / 10 if self.seconds is None else self.seconds) as scorer:
            for text, references in zip(tokens.texts, tokens.references, strict=True):
                # The bars part the fields of a line; pycocoevalcap takes them out of captions only.
                plain = [reference.replace("|||", "") for reference in references]
                rows.append([float(number) for number in scorer._stat(text, plain).split()])
                if len(rows[-1]) != _COUNTS:
                    raise JavaError("METEOR ended early; it needs 2 GB of memory")
        parts = np.asarray(rows, dtype=np.float64)
        # One chunk that is the whole of both texts counts as none, in the corpus's sums too.
        parts[(parts[:, 20] == 1) & (parts[:, 21:23] == parts[:, 0:2]).all(1), 20] = 0
        return Sums("meteor", "METEOR", "higher", meteor_from_counts(parts), parts, meteor_from_counts)


_COUNTS = 23
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])
"""What a match counts: of the word, its stem, a synonym, a paraphrase."""


def meteor_from_counts(counts: Floats) -> Floats:
    """METEOR from the counts that its program prints (Denkowski & Lavie 2014, section 2), English weights.

    Args:
        counts: (rows, 23): lengths of text and reference, function words of both; for each of the four
            matchers content words matched in text and reference and function words in both; chunks (none
            where a text is its reference), matched words of text and reference.

    Returns:
        (rows,); zero where nothing matches.
    """
    length = counts[:, 0:2]
    function = counts[:, 2:4]
    matched = counts[:, 4:20].reshape(-1, 4, 4)
    content_matched = np.einsum("m,rmk->rk", _MATCHERS, matched[:, :, 0:2])
    function_matched = np.einsum("m,rmk->rk", _MATCHERS, matched[:, :, 2:4])
    possible = _DELTA * (length - function) + (1 - _DELTA) * function
    found = _DELTA * content_matched + (1 - _DELTA) * function_matched
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = (found / possible).T
        harmonic = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        chunks, words = counts[:, 20], counts[:, 21:23]
        penalty = _GAMMA * (chunks / words.mean(1)) ** _BETA
        return np.where(found.all(1), harmonic * (1 - penalty), 0.0)


@contextmanager
def _meteor(seconds: float) -> Iterator[Any]:
    """Pycocoevalcap's METEOR, whose program is ended whatever happens.

    Raises:
        JavaError: if the program fails or takes too long.
    """
    from pycocoevalcap.meteor.meteor import Meteor as Scorer

    scorer = Scorer()
    process: subprocess.Popen[bytes] = scorer.meteor_p
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield scorer
    except (OSError, ValueError) as error:
        raise JavaError(f"METEOR ended early ({error}); it needs 2 GB of memory") from None
    except JavaError:
        if late.is_set():
            raise JavaError(f"METEOR took more than {seconds:.0f} s and was stopped") from None
        raise
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


@metrics.register("spice")
class Spice(_JavaMetric):
    """SPICE (Anderson et al. 2016): the mean F-score of the scene graphs' facts.

    A caption in which it finds no facts may have no value. Its parser's models are not part of pycocoevalcap.
    They are never downloaded from here: the column says what to run.

    Args:
        seconds: after so long Java is stopped; None for ten minutes and a second for every caption.
    """

    titles: ClassVar[Mapping[str, str]] = {"spice": "SPICE"}

    def _compute(self, folder: Path, tokens: Tokens) -> Column:
        lib = folder / "spice" / "lib"
        missing = [name for name in SPICE_MODELS if not (lib / name).is_file()]
        if missing:
            raise JavaError(
                f"{missing[0]} is not in {lib}; with a network, run "
                "python -m pycocoevalcap.spice.get_stanford_models"
            )
        seconds = 600 + len(tokens.texts) if self.seconds is None else self.seconds
        return mean(
            "spice", "SPICE", "higher", _spice(folder / "spice", tokens.texts, tokens.references, seconds)
        )


def _spice(
    folder: Path, texts: Sequence[str], references: Sequence[Sequence[str]], seconds: float
) -> list[float]:
    """F-scores of captions; with pycocoevalcap's arguments, but outside its folder.

    Raises:
        JavaError: if the program fails, takes too long or does not give a score for every caption.
    """
    asked = [
        {"image_id": number, "test": text, "refs": list(several)}
        for number, (text, several) in enumerate(zip(texts, references, strict=True))
    ]
    cache = cache_root() / "spice"
    with tempfile.TemporaryDirectory(prefix="promptfuse-") as place:
        given, found = Path(place) / "captions.json", Path(place) / "scores.json"
        given.write_text(json.dumps(asked), encoding="utf-8")
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:
            cache = Path(place) / "cache"
            cache.mkdir()
        arguments = ["-jar", "-Xmx8G", str(folder / "spice-1.0.jar"), str(given)]
        arguments += ["-cache", str(cache), "-out", str(found), "-subset", "-silent"]
        run_java(arguments, seconds=seconds, folder=folder)
        try:
            rows = json.loads(found.read_text(encoding="utf-8"))
            scores = {row["image_id"]: _number(row["scores"]["All"]["f"]) for row in rows}
            return [scores[number] for number in range(len(asked))]
        except (OSError, ValueError, KeyError, TypeError):
            raise JavaError("SPICE gave no score for some captions") from None


def _number(value: Any) -> float:
    """As pycocoevalcap reads it: what is not a number is NaN."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
