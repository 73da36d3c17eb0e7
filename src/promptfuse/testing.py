"""A search problem whose best text is known, for tests of methods, strategies and terms.

Two tiny models with weights set by hand: a language model that is a table of what follows what, and a
classifier that counts words it likes, which its own tokenizer cuts in other places. There are so few words
that every text of a length can be tried, which tells the best one. Making both takes a fraction of a second.

    from promptfuse.testing import known_answer

    problem = known_answer(folder)
    text, value = problem.best(4)
    result = pf.optimize(problem.objective, MyMethod(), constraints=problem.constraints, steps=12)
    assert result.text == text
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast

from promptfuse.models import CausalLM, SequenceClassifier, load_model
from promptfuse.objectives import ClassProbability, Fluency, Objective
from promptfuse.search import Constraints

WORDS = ("a", "red", "fox", "the", "old", "dog", "runs", ".")
"""All words that the language model knows, one token each."""

CHAINS = (("<s>", "a", "red", "fox", "."), ("<s>", "the", "old", "dog", "."))
"""The sentences that the language model likes; the classifier likes the first."""

_STRENGTHS = (3.0, 1.0)
_LIKED = {"a": 0.5, "red": 1.0, "fo": 1.0, "##x": 1.0}
_PIECES = ("<s>", "<unk>", "a", "red", "fo", "##x", "the", "old", "d", "##og", "runs", ".")
_WIDTH = 16


@dataclass
class KnownAnswer:
    """An objective, and its best text of any length by trying every text.

    Attributes:
        objective: ``Fluency`` under the language model and ``ClassProbability`` of the label ``good``.
        constraints: rules that forbid none of the texts.
    """

    objective: Objective
    constraints: Constraints = field(
        default_factory=lambda: Constraints(no_repeat_ngram=0, no_repeated_word=False)
    )
    _answers: dict[tuple[int, str], tuple[str, float]] = field(default_factory=dict)

    def best(self, length: int, ending: str = "") -> tuple[str, float]:
        """The best text and the objective's value for it.

        Args:
            length: words of the text; the time grows eightfold with each (0.2 s for 4).
            ending: what the text must end with, such as ``.``.

        Raises:
            ValueError: if the two best texts are closer than 0.001, so that the answer is not clear.
        """
        if (length, ending) not in self._answers:
            texts = [" ".join(words) for words in product(WORDS, repeat=length)]
            texts = [text for text in texts if text.endswith(ending)]
            values = self.objective.totals(self.objective.score(texts))
            first, second = values.topk(2, largest=False).values.tolist()
            if second - first <= 1e-3:
                raise ValueError(f"the two best texts of {length} words differ by {second - first:.1e} only")
            self._answers[length, ending] = (texts[int(values.argmin())], first)
        return self._answers[length, ending]


def known_answer(folder: str | os.PathLike[str], trap: bool = False) -> KnownAnswer:
    """Make the problem.

    Args:
        folder: where the two checkpoints are written, in folders of their own.
        trap: have the language model prefer the first word of the sentence that is not the best one, so
            that a search which decides greedily is misled.

    Returns:
        The problem; a new one at each call.
    """
    lm, classifier = make_models(folder, trap)
    assert isinstance(lm, CausalLM)
    assert isinstance(classifier, SequenceClassifier)
    return KnownAnswer(Objective(Fluency(lm), ClassProbability(classifier, "good", 1.0)))


def make_models(folder: str | os.PathLike[str], trap: bool = False) -> tuple[CausalLM, SequenceClassifier]:
    """The problem's language model and classifier; the arguments are those of ``known_answer``."""
    root = Path(folder)
    shown = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        _write_language_model(root / "lm", 6.0 if trap else 0.0)
        _write_classifier(root / "classifier")
        lm, classifier = load_model(root / "lm"), load_model(root / "classifier")
    finally:
        if shown:
            transformers.logging.enable_progress_bar()
    assert isinstance(lm, CausalLM)
    assert isinstance(classifier, SequenceClassifier)
    return lm, classifier


def _blank_gpt2(kind: type, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> Any:
    """A GPT-2 with orthonormal embeddings, whose layer passes them on; biases and positions are zero."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=16,
        n_embd=_WIDTH,
        n_layer=1,
        n_head=1,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    module = kind(config).eval().requires_grad_(False)
    for name, parameter in module.named_parameters():
        parameter.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
    # Embeddings of mean zero: a layer normalisation only multiplies them by 4.
    basis = torch.randn(_WIDTH, _WIDTH, generator=torch.Generator().manual_seed(2))
    basis[:, 0] = 1.0
    module.transformer.wte.weight.copy_(torch.linalg.qr(basis).Q[:, 1 : len(tokenizer) + 1].T)
    return module


def _write_language_model(folder: Path, lure: float) -> None:
    vocabulary = {"<s>": 0, "<unk>": 1} | {f"▁{word}": 2 + index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", unk_token="<unk>", model_max_length=16
    )
    size = len(fast)
    table = 0.1 * torch.randn(size, size, generator=torch.Generator().manual_seed(1))
    table[:, :2] = -1.0  # The text never ends by itself, and nothing unknown is said.
    for chain in CHAINS:  # What begins a chain stands at the beginning and nowhere else.
        table[2:, vocabulary[f"▁{chain[1]}"]] -= 3.0
    for chain, strength in zip(CHAINS, _STRENGTHS, strict=True):
        ids = [vocabulary.get(word, vocabulary.get(f"▁{word}", 1)) for word in chain]
        for first, second in pairwise(ids):
            table[first, second] += strength
    table[0, vocabulary[f"▁{CHAINS[1][1]}"]] += lure
    module = _blank_gpt2(GPT2LMHeadModel, fast)
    module.lm_head.weight.copy_(table.T @ module.transformer.wte.weight / _WIDTH**0.5)
    module.save_pretrained(folder)
    fast.save_pretrained(folder)


def _write_classifier(folder: Path) -> None:
    tokenizer = Tokenizer(
        models.WordPiece({piece: index for index, piece in enumerate(_PIECES)}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<s>",
        pad_token="<s>",
        unk_token="<unk>",
        model_max_length=16,
    )
    module = _blank_gpt2(
        GPT2ForSequenceClassification, fast, id2label={0: "good", 1: "bad"}, label2id={"good": 0, "bad": 1}
    )
    block = module.transformer.h[0]
    # Queries and keys are zero, so attention is the mean of all tokens so far.
    block.attn.c_attn.weight[:, 2 * _WIDTH :] = torch.eye(_WIDTH)
    block.attn.c_proj.weight.copy_(torch.eye(_WIDTH))
    liking = torch.tensor([_LIKED.get(piece, -0.3) for piece in _PIECES])
    module.score.weight[0] = liking @ module.transformer.wte.weight
    module.save_pretrained(folder)
    fast.save_pretrained(folder)
