"""BLEU-4 and CIDEr-D of lists of captions."""

from __future__ import annotations

from promptfuse.evaluation.metrics import Score, score


def caption_metrics(texts: list[str], references: list[list[str]]) -> dict[str, float | str]:
    """BLEU-4 and CIDEr-D of one caption a photo against several references, and what cut the words.

    Raises:
        ConfigError: if pycocoevalcap is not installed.
    """
    scores = score(
        {str(index): text for index, text in enumerate(texts)},
        {str(index): several for index, several in enumerate(references)},
        metrics=["bleu_4", "cider_d"],
        resamples=0,
    )
    found: dict[str, float | str] = {"tokenizer": scores.tokenizer}
    for key, name in (("bleu4", "bleu_4"), ("cider_d", "cider_d")):
        column = scores.metrics[name]
        found[key] = column.value if isinstance(column, Score) else float("nan")
    return found
