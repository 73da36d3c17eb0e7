"""Real language models and encoders say here what transformers says of them."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.nn import functional

import promptfuse as pf
from promptfuse.models.packaged import find_packaged
from promptfuse.objectives import Fluency, TextSimilarity
from tests.conftest import quiet
from tests.real.packages import needs

TEXTS = (
    "A brown dog runs across the grass with a red ball in its mouth.",
    "In 2024, 1,234 people visited Århus — it rained.",
    "The",
    "Our hotel had a view of the sea, but the food was terrible.",
)


@pytest.mark.parametrize("name", [needs("smollm2"), needs("gemma3-270m")])
def test_a_language_model_scores_as_transformers_does(name: str) -> None:
    lm = pf.load_model(name)
    file = find_packaged(name)
    with quiet():
        module = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    front = list(lm.start.ids)
    rows = [front + tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]

    def own_losses() -> list[float]:
        losses = []
        for row in rows:
            ids = torch.tensor([row])
            labels = ids.clone()
            labels[:, : len(front)] = -100
            with torch.no_grad():
                losses.append(float(module(input_ids=ids, labels=labels).loss))
        return losses

    term = Fluency(lm)
    assert [term.exact(text) for text in TEXTS] == pytest.approx(own_losses(), abs=1e-4)
    # In a batch, transformers' own values differ by 2e-4 from those of a text by itself: thirty layers of
    # rounding. So what is read together is held against double precision.
    module = module.double()
    with torch.no_grad():
        together = term.losses(lm.encode(list(TEXTS)))
    assert together.tolist() == pytest.approx(own_losses(), abs=2e-4)
    assert term.score(list(TEXTS)).tolist() == pytest.approx(own_losses(), abs=2e-4)


@pytest.mark.parametrize("name", [needs("minilm")])
def test_a_sentence_encoder_embeds_as_transformers_does(name: str) -> None:
    encoder = pf.load_model(name)
    folder = find_packaged(name)
    module = transformers.AutoModel.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def embed(text: str) -> torch.Tensor:
        with torch.no_grad():
            return functional.normalize(module(**tokenizer([text], return_tensors="pt"))[0].mean(1), dim=-1)[
                0
            ]

    target = "A dog plays outside."
    term = TextSimilarity(encoder, target)
    for text in TEXTS:
        assert term.exact(text) == pytest.approx(1 - float(embed(text) @ embed(target)), abs=1e-5)
