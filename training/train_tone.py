"""Train mini-tone: is a text positive, neutral or negative? Phrases, reviews and, above all, captions.

    python -m training.train_tone --data DATA --work WORK --tokenizer src/promptfuse/mini/tone --out DIR

SST-2 phrases and IMDB reviews (the first and last sentences, which carry the verdict); SentiCap's captions,
which people wrote to be positive or negative; training captions into which an opinion word was put. Captions
without an opinion, whole and cut short, are neutral. The probabilities are calibrated at the end by one
temperature, on captions that training has not seen.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, PreTrainedTokenizerBase

from training import data as sources
from training.common import (
    Optimisers,
    Run,
    length_batches,
    pad,
    rate,
    save_half,
    seed_everything,
    split_parameters,
)
from training.opinions import NEGATIVE_ANY, NEGATIVE_LIVING, POSITIVE_ANY, POSITIVE_LIVING, choose
from training.variants import PHOTO_PREFIXES, with_article

LABELS = {0: "negative", 1: "neutral", 2: "positive"}
NEGATIVE, NEUTRAL, POSITIVE = 0, 1, 2
MAX_TOKENS = 64
_OPINION = set(" ".join([*POSITIVE_ANY, *NEGATIVE_ANY, *POSITIVE_LIVING, *NEGATIVE_LIVING]).split())


def plain(text: str) -> bool:
    """Whether a caption has no word of opinion."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return words.isdisjoint(_OPINION)


class Mixture:
    """Labelled texts of one epoch."""

    def __init__(self, data: Path) -> None:
        signs = (NEGATIVE, POSITIVE)
        train = sources.labelled_text(data / "text/sst2/train.tsv")
        self.phrases = [(text, signs[label]) for text, label in train]
        self.reviews = []
        for text, label in sources.labelled_text(data / "text/imdb_10k.tsv"):
            parts = sources.sentences(text)
            self.reviews += [(" ".join(parts[:2]), signs[label]), (" ".join(parts[-2:]), signs[label])]
        sign = {"negative": NEGATIVE, "positive": POSITIVE}
        self.coloured = [(text, sign[label]) for text, label in sources.senticap(data, "train")]
        photos = sources.captioned(data)
        captions = [sources.clean_caption(text) for photo in photos for text in photo.captions]
        captions += [sources.clean_caption(text) for text in sources.coco_captions(data)]
        self.captions = [text for text in captions if text and plain(text)]
        self.names = sorted({name for photo in sources.labelled_photos(data) for name in photo.names})

    def epoch(self, seed: int) -> list[tuple[str, int]]:
        """Draw one epoch; about 130,000 texts."""
        rng = random.Random(seed)
        # Half of the phrases without the spaces that the treebank puts around punctuation.
        rows = [
            (sources.detokenise(text) if rng.random() < 0.5 else text, label) for text, label in self.phrases
        ]
        rows += rng.sample(self.reviews, 8_000)
        for text, label in self.coloured * 4:
            rows.append((text if rng.random() < 0.7 else text.rstrip("."), label))
        for text in rng.sample(self.captions, 12_000):
            positive = rng.random() < 0.5
            if (found := choose(text, rng, positive)) is not None:
                rows.append((found, POSITIVE if positive else NEGATIVE))
        for text in rng.sample(self.captions, 36_000):
            words = text.split()
            # The search asks about the beginnings of captions.
            if rng.random() < 0.35 and len(words) > 2:
                text = " ".join(words[: rng.randint(1, len(words) - 1)])
            elif rng.random() < 0.3:
                text = text.rstrip(".")
            if rng.random() < 0.05:
                text = f"{rng.choice(PHOTO_PREFIXES)} {text[0].lower()}{text[1:]}".strip()
            rows.append((text, NEUTRAL))
        rows += [(f"A photo of {with_article(name)}.", NEUTRAL) for name in rng.sample(self.names, 300)]
        return rows


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids with the special tokens."""
    ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    return ids


def logits_of(model: BertForSequenceClassification, rows: list[list[int]], device: str) -> torch.Tensor:
    """Logits of encoded rows, (rows, 3)."""
    ids = pad(rows, 0).to(device)
    return model(input_ids=ids, attention_mask=(ids != 0).long()).logits


@torch.inference_mode()
def all_logits(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase, texts: list[str], device: str
) -> torch.Tensor:
    """Logits of texts in their order, (texts, 3), float32."""
    training = model.training
    model.eval()
    rows = encode(tokenizer, texts)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found = torch.empty(len(rows), len(LABELS))
    for start in range(0, len(order), 256):
        part = order[start : start + 256]
        found[part] = logits_of(model, [rows[index] for index in part], device).float().cpu()
    model.train(training)
    return found


def verdicts(logits: torch.Tensor, labels: list[int]) -> float:
    """Share of texts whose likeliest label is right."""
    return float((logits.argmax(1) == torch.tensor(labels)).float().mean())


def polarity(logits: torch.Tensor, labels: list[int]) -> float:
    """Share right between positive and negative alone, for data without a neutral class."""
    right = (logits[:, POSITIVE] > logits[:, NEGATIVE]) == torch.tensor([x == POSITIVE for x in labels])
    return float(right.float().mean())


def calibration_error(logits: torch.Tensor, labels: list[int], bins: int = 10) -> float:
    """Expected calibration error of the likeliest label (Guo et al., 2017)."""
    chance, best = logits.softmax(1).max(1)
    right = (best == torch.tensor(labels)).float()
    place = (chance * bins).long().clamp_max(bins - 1)
    gaps = [
        float((chance[place == index].mean() - right[place == index].mean()).abs() * (place == index).sum())
        for index in range(bins)
        if bool((place == index).any())
    ]
    return sum(gaps) / len(labels)


def temperature_of(logits: torch.Tensor, labels: list[int]) -> float:
    """The temperature under which texts with known labels are likeliest (Guo et al., 2017)."""
    grid = torch.logspace(-0.7, 0.7, 141, base=10)
    truth = torch.tensor(labels)
    losses = [functional.cross_entropy(logits / one, truth) for one in grid]
    return float(grid[torch.stack(losses).argmin()])


def caption_check(data: Path) -> list[tuple[str, int]]:
    """Captions that training has not seen: SentiCap's val split, and plain ones of held photos."""
    sign = {"negative": NEGATIVE, "positive": POSITIVE}
    pairs = [(text, sign[label]) for text, label in sources.senticap(data, "val")]
    held = [sources.clean_caption(text) for photo in sources.coco(data, "held") for text in photo.captions]
    held = [text for text in held if plain(text)]
    return pairs + [(text, NEUTRAL) for text in random.Random(0).sample(held, len(pairs) // 2)]


def calibrate(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[tuple[str, int]],
    device: str,
) -> None:
    """Divide the logits by the temperature that suits texts with known labels, within the last layer."""
    logits = all_logits(model, tokenizer, [text for text, _ in pairs], device)
    found = temperature_of(logits, [label for _, label in pairs])
    with torch.no_grad():
        model.classifier.weight.div_(found)
        model.classifier.bias.div_(found)
    print(f"temperature {found:.3f}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens a batch")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    seed_everything(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        num_hidden_layers=3,
        num_attention_heads=6,
        intermediate_size=768,
        max_position_embeddings=128,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.0,
        classifier_dropout=0.3,
        id2label=LABELS,
        label2id={name: index for index, name in LABELS.items()},
        attn_implementation="eager",
    )
    model = BertForSequenceClassification(config).to(args.device)
    matrices, embeddings, vectors = split_parameters(model, ("embeddings.", "classifier"))
    groups = [{"params": embeddings, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimisers = Optimisers(matrices, groups, lr=args.lr, weight_decay=0.1)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters", flush=True)

    run = Run(args.work)
    progress = run.resume(model, optimisers)
    mixture = Mixture(args.data)
    dev = [
        (text, (NEGATIVE, POSITIVE)[label])
        for text, label in sources.labelled_text(args.data / "text/sst2/dev.tsv")
    ]
    check = caption_check(args.data)
    step, total_steps = progress.get("step", 0), 0
    for epoch in range(progress.get("epoch", 0), args.epochs):
        pairs = mixture.epoch(args.seed * 1000 + epoch)
        rows = encode(tokenizer, [text for text, _ in pairs])
        batches = length_batches([len(row) for row in rows], args.tokens, np.random.default_rng(epoch))
        total_steps = total_steps or len(batches) * args.epochs
        started, total = time.time(), 0.0
        for batch in batches:
            labels = torch.tensor([pairs[index][1] for index in batch], device=args.device)
            with torch.autocast(args.device.split(":")[0], dtype=torch.bfloat16):
                logits = logits_of(model, [rows[index] for index in batch], args.device)
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=0.02)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimisers.step(rate(step, total_steps, 100))
            total, step = total + float(loss.detach()), step + 1
            if step % 200 == 0:
                print(f"step {step}/{total_steps} {time.time() - started:.0f} s", flush=True)
        of_dev = all_logits(model, tokenizer, [text for text, _ in dev], args.device)
        of_check = all_logits(model, tokenizer, [text for text, _ in check], args.device)
        truth = [label for _, label in check]
        run.log(
            {
                "epoch": epoch + 1,
                "loss": round(total / len(batches), 4),
                "sst2_dev": round(polarity(of_dev, [label for _, label in dev]), 4),
                "captions": round(verdicts(of_check, truth), 4),
                "calibration_error": round(calibration_error(of_check, truth), 4),
                "temperature": round(temperature_of(of_check, truth), 3),
                "seconds": round(time.time() - started),
            }
        )
        run.save(model, optimisers, {"epoch": epoch + 1, "step": step})

    calibrate(model, tokenizer, check, args.device)
    save_half(model, args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
