"""What fidelity is measured on: losses, and texts of several lengths, to each of which a word is added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from promptfuse.errors import ModelError
from promptfuse.models import CausalLM, ImageTextModel, Model, SentenceEncoder, SequenceClassifier
from promptfuse.models.images import ImageLike
from promptfuse.objectives import ClassProbability, ImageSimilarity, Term, TextSimilarity

LENGTHS = (3, 5, 8, 12)
"""How many words the texts have."""

_ROOM = 8  # tokens of the judging model that are kept free for the next word
_MOST_TOKENS = 4 * max(LENGTHS)


@dataclass(frozen=True)
class Case:
    """Texts to add a word to, and the loss that judges the result.

    Attributes:
        term: the loss.
        texts: texts of one or more words.
    """

    term: Term
    texts: tuple[str, ...]


def make_cases(
    primary: CausalLM, model: Model, texts: int, images: Sequence[ImageLike] = (), seed: int = 0
) -> list[Case]:
    """Cases for any model that judges texts: the language model writes, and the losses take turns.

    An image-text model judges by the photos; without any, and if it is a sentence encoder, by likeness to
    other texts that the language model has written; a classifier by each of its labels.

    Args:
        primary: the language model.
        model: the model that judges.
        texts: how many texts are written; each is cut at every one of `LENGTHS`.
        images: photos, for an image-text model only.
        seed: of the texts.

    Raises:
        ModelError: if the model judges no text by its next word, or photos are given to one without eyes.
        ImageError: if a photo cannot be read.
    """
    if images and not isinstance(model, ImageTextModel):
        raise ModelError(f"{model.name} is a {model.kind} model and does not read photos; leave them out")
    terms: list[Term] = []
    if isinstance(model, SequenceClassifier):
        terms += [ClassProbability(model, label) for label in model.labels]
    elif isinstance(model, ImageTextModel):
        terms += [ImageSimilarity(model, image) for image in images]
    elif not isinstance(model, SentenceEncoder):
        raise ModelError(
            f"{model.name} is a {model.kind} model, which cannot be measured here; "
            "give an image-text model, a sentence encoder or a classifier as the second model"
        )
    written = write_texts(primary, texts if terms else 2 * texts, seed)
    terms = terms or [TextSimilarity(model, fitting(model, target)) for target in written[texts:]]
    return [
        Case(terms[index % len(terms)], beginnings(fitting(model, text)))
        for index, text in enumerate(written[:texts])
    ]


def beginnings(text: str) -> tuple[str, ...]:
    """A text's first words, for each of `LENGTHS` that it has; the text itself if it has fewer."""
    words = text.split()
    return tuple(" ".join(words[:length]) for length in LENGTHS if length <= len(words)) or (text,)


def fitting(model: Model, text: str) -> str:
    """A text cut so that a model has room for another word: to whole words, or a part of the first."""
    while len(text) > 1:
        (ids,) = model.tokenizer([text], verbose=False)["input_ids"]
        if len(ids) + _ROOM <= model.max_length:
            break
        shorter, blank, _ = text.rpartition(" ")
        text = shorter if blank else text[:-1]
    return text


def write_texts(lm: CausalLM, count: int, seed: int, words: int = max(LENGTHS)) -> list[str]:
    """Texts that a language model writes, drawn word by word from its own distribution.

    The model may not end a text early. One without a begin-of-text token continues the letter A.

    Args:
        lm: the language model.
        count: how many texts.
        seed: random seed.
        words: how many words each text should have; a model that writes no words gives fewer.

    Returns:
        ``count`` texts of one word or more, each on one line.
    """
    generator = torch.Generator().manual_seed(seed)
    start = [] if lm.start_ids else lm.plain_ids(["A"])[0]
    banned = torch.tensor(sorted({*lm.tokenizer.all_special_ids, *lm.end_ids}), dtype=torch.long)
    most = min(_MOST_TOKENS, lm.max_length - len(lm.start_ids) - _ROOM)
    rows = [list(start) for _ in range(count)]
    texts = [""] * count
    for _ in range(most - len(start)):
        # The last word may be unfinished, so one more than is wanted.
        going = [index for index in range(count) if len(texts[index].split()) <= words]
        if not going:
            break
        scores = lm.next_log_probabilities([rows[index] for index in going]).cpu()
        scores[:, banned[banned < scores.shape[1]]] = -torch.inf
        scores[:, len(lm.tokenizer) :] = -torch.inf
        drawn = torch.multinomial(scores.softmax(1), 1, generator=generator)[:, 0]
        for index, token in zip(going, drawn.tolist(), strict=True):
            rows[index].append(token)
            texts[index] = lm.tokenizer.decode(rows[index], clean_up_tokenization_spaces=False)
    return [" ".join(text.split()[:words]) or "A" for text in texts]
