from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from promptfuse.errors import ConfigError
from promptfuse.models import SequenceClassifier

TEXTS = ("A wonderful film, the best that I have seen!", "dull", "The plot is dull")


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_log_probabilities_are_those_of_transformers(
    name: str, model: Callable[..., Any], checkpoint: Callable[[str], Path]
) -> None:
    transformers.logging.disable_progress_bar()
    module = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint(name)).eval()
    transformers.logging.enable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(name))
    inputs = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = module(**inputs).logits.log_softmax(-1)
        bare = module(input_ids=inputs["input_ids"]).logits.log_softmax(-1)
    loaded = model(name)
    found = loaded.log_probabilities(loaded.encode(TEXTS))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # It matters that the mask is there, and the special tokens too.
    assert (found[1] - bare[1]).abs().max() > 1e-3
    without = loaded.collate(tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"], [(0, 0)] * 3)
    assert (found - loaded.log_probabilities(without)).abs().max() > 1e-3
    assert (found[0] - found[1]).abs().max() > 1e-3
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3))


def test_labels_are_found_whatever_their_case(model: Callable[..., Any]) -> None:
    assert model("bert").labels == ("Negative", "Positive")
    assert [model("bert").label_index(label) for label in ("positive", "Positive", "NEGATIVE")] == [1, 1, 0]
    assert model("roberta").labels == ("negative", "neutral", "positive")
    assert model("roberta").label_index("Neutral") == 1


def test_an_unknown_label_is_answered_with_those_there_are(model: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"no label 'happy'; choose from: negative, neutral, positive"):
        model("roberta").label_index("happy")


def _decoder(lm: Any, **changes: Any) -> SequenceClassifier:
    config = transformers.GPT2Config(**{**lm.module.config.to_dict(), "num_labels": 3, **changes})
    torch.manual_seed(0)
    module = transformers.GPT2ForSequenceClassification(config)
    module.transformer.load_state_dict(lm.module.transformer.state_dict())
    torch.nn.init.normal_(module.score.weight)
    return SequenceClassifier(module, lm.tokenizer, "decoder")


@pytest.mark.parametrize("pad", [None, 7])
def test_a_decoder_pools_at_the_end_of_each_text(pad: int | None, model: Callable[..., Any]) -> None:
    # Decoders look for the last id that is not the padding: the padding must be the one that they know.
    classifier = _decoder(model("gpt2"), pad_token_id=pad)
    together = classifier.log_probabilities(classifier.encode(TEXTS))
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([classifier.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            expected = classifier.module(input_ids=ids).logits.log_softmax(-1)[0]
        torch.testing.assert_close(together[row], expected, rtol=1e-5, atol=1e-5)


def test_labels_that_do_not_exclude_each_other(model: Callable[..., Any]) -> None:
    classifier = _decoder(model("gpt2"), problem_type="multi_label_classification")
    batch = classifier.encode(TEXTS)
    logits = classifier.module(input_ids=batch.ids, attention_mask=batch.mask).logits
    torch.testing.assert_close(classifier.log_probabilities(batch).exp(), logits.sigmoid())
