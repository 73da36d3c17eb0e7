"""A tiny problem whose best text is known: two checkpoints with weights set by hand.

The language model is a table of what follows what; the classifier counts words, which it cuts in other
places than the language model does. The best text of any length is found by trying all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast

import promptfuse as pf

WORDS = ("a", "red", "fox", "the", "old", "dog", "runs", ".")
CHAINS = (("<s>", "a", "red", "fox", "."), ("<s>", "the", "old", "dog", "."))
STRENGTHS = (3.0, 1.0)
LIKED = {"a": 0.5, "red": 1.0, "fo": 1.0, "##x": 1.0}
WIDTH = 16
FREE = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False)


def _blank_gpt2(kind: type, tokenizer: PreTrainedTokenizerFast, **settings: object):
    """A GPT-2 with orthonormal embeddings, whose layer passes them on; biases and positions are zero.

    The embeddings have mean zero, so that a layer normalisation only multiplies them by 4.
    """
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=16, n_embd=WIDTH, n_layer=1, n_head=1,
        tie_word_embeddings=False, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **settings,
    )  # fmt: skip
    module = kind(config).eval().requires_grad_(False)
    for name, parameter in module.named_parameters():
        parameter.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
    basis = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2))
    basis[:, 0] = 1.0
    module.transformer.wte.weight.copy_(torch.linalg.qr(basis).Q[:, 1 : len(tokenizer) + 1].T)
    return module


def _lookup_lm(folder: Path, lure: float = 0.0) -> None:
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
    for chain, strength in zip(CHAINS, STRENGTHS, strict=True):
        ids = [vocabulary.get(word, vocabulary.get(f"▁{word}")) for word in chain]
        for first, second in pairwise(ids):
            table[first, second] += strength
    table[0, vocabulary[f"▁{CHAINS[1][1]}"]] += lure
    module = _blank_gpt2(GPT2LMHeadModel, fast)
    module.lm_head.weight.copy_(table.T @ module.transformer.wte.weight / WIDTH**0.5)
    module.save_pretrained(folder)
    fast.save_pretrained(folder)


def _counting_classifier(folder: Path) -> None:
    pieces = ["<s>", "<unk>", "a", "red", "fo", "##x", "the", "old", "d", "##og", "runs", "."]
    tokenizer = Tokenizer(
        models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", pad_token="<s>", unk_token="<unk>",
        model_max_length=16,
    )  # fmt: skip
    module = _blank_gpt2(
        GPT2ForSequenceClassification, fast, id2label={0: "good", 1: "bad"}, label2id={"good": 0, "bad": 1}
    )
    block = module.transformer.h[0]
    # Queries and keys are zero, so attention is the mean of all tokens so far.
    block.attn.c_attn.weight[:, 2 * WIDTH :] = torch.eye(WIDTH)
    block.attn.c_proj.weight.copy_(torch.eye(WIDTH))
    liking = torch.tensor([LIKED.get(piece, -0.3) for piece in pieces])
    module.score.weight[0] = liking @ module.transformer.wte.weight
    module.save_pretrained(folder)
    fast.save_pretrained(folder)


@dataclass
class Puzzle:
    """The problem: an objective, and the answer by trying every text."""

    objective: pf.Objective
    answers: dict[tuple[int, str], tuple[str, float]] = field(default_factory=dict)

    def best(self, length: int, ending: str = "") -> tuple[str, float]:
        """The best text of so many words, with its value; ``ending`` is what the text must end with."""
        if (length, ending) not in self.answers:
            texts = [" ".join(words) for words in product(WORDS, repeat=length)]
            texts = [text for text in texts if text.endswith(ending)]
            values = self.objective.totals(self.objective.score(texts))
            first, second = values.topk(2, largest=False).values.tolist()
            assert second - first > 1e-3, "the answer must be clear"
            self.answers[length, ending] = (texts[int(values.argmin())], first)
        return self.answers[length, ending]


@pytest.fixture(scope="session")
def lookup_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Folders of the language model, of one with a trap, and of the classifier."""
    root = tmp_path_factory.mktemp("lookup")
    transformers.logging.disable_progress_bar()
    _lookup_lm(root / "lm")
    # The other chain begins with a likelier word.
    _lookup_lm(root / "trap", 6.0)
    _counting_classifier(root / "classifier")
    transformers.logging.enable_progress_bar()
    return root / "lm", root / "trap", root / "classifier"


@pytest.fixture(scope="session")
def make_puzzle(lookup_models: tuple[Path, ...]) -> Callable[..., Puzzle]:
    """The puzzle, plain or with a trap."""
    lm, trap, classifier = (pf.load_model(folder) for folder in lookup_models)

    def make(trapped: bool = False) -> Puzzle:
        fluency = pf.Fluency(trap if trapped else lm)
        return Puzzle(pf.Objective(fluency, pf.ClassProbability(classifier, "good", 1.0)))

    return make


@pytest.fixture(scope="session")
def puzzle(make_puzzle: Callable[..., Puzzle]) -> Puzzle:
    return make_puzzle()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Adapters that tests fit stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTFUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
