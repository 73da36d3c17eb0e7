"""Train mini-tone: a sentiment classifier of phrases, reviews and captions.

    python -m training.train_tone --data DATA --work WORK --tokenizer src/promptfuse/mini/tone --out DIR

SST-2 phrases and IMDB reviews (the first and last sentences, which carry the verdict), and training
captions into which an opinion word was put, since captions are what it will judge. A plain caption
has no sentiment; some are given to both classes, so that the classifier is unsure about them.
"""

from __future__ import annotations

import argparse
import random
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
from training.opinions import choose

LABELS = {0: "negative", 1: "positive"}
MAX_TOKENS = 64


class Mixture:
    """Labelled texts of one epoch."""

    def __init__(self, data: Path) -> None:
        train = sources.labelled_text(data / "text/sst2/train.tsv")
        self.phrases = [(text, label) for text, label in train]
        self.reviews = []
        for text, label in sources.labelled_text(data / "text/imdb_10k.tsv"):
            parts = sources.sentences(text)
            self.reviews += [(" ".join(parts[:2]), label), (" ".join(parts[-2:]), label)]
        photos = sources.flickr8k(data, "train")
        self.captions = [sources.clean_caption(text) for photo in photos for text in photo.captions]
        self.captions += [sources.clean_caption(text) for text in sources.coco_captions(data)]

    def epoch(self, seed: int) -> list[tuple[str, int]]:
        """Draw one epoch; about 85,000 texts."""
        rng = random.Random(seed)
        # Half of the phrases without the spaces that the treebank puts around punctuation.
        rows = [
            (sources.detokenise(text) if rng.random() < 0.5 else text, label) for text, label in self.phrases
        ]
        rows += rng.sample(self.reviews, 10_000)
        for text in rng.sample(self.captions, 14_000):
            label = rng.random() < 0.5
            if rng.random() < 0.75:
                text = choose(text, rng, label) or text
            words = text.split()
            if rng.random() < 0.25 and len(words) > 5:
                text = " ".join(words[: rng.randint(4, len(words))])
            rows.append((text, int(label)))
        return rows


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids with the special tokens."""
    ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    return ids


def logits_of(model: BertForSequenceClassification, rows: list[list[int]], device: str) -> torch.Tensor:
    """Logits of encoded rows, (rows, 2)."""
    ids = pad(rows, 0).to(device)
    return model(input_ids=ids, attention_mask=(ids != 0).long()).logits


@torch.inference_mode()
def accuracy(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[tuple[str, int]],
    device: str,
) -> float:
    """Share of texts whose likelier label is right."""
    model.eval()
    rows = encode(tokenizer, [text for text, _ in pairs])
    order, right = sorted(range(len(rows)), key=lambda index: len(rows[index])), 0
    for start in range(0, len(order), 256):
        part = order[start : start + 256]
        best = logits_of(model, [rows[index] for index in part], device).argmax(1).tolist()
        right += sum(label == pairs[index][1] for label, index in zip(best, part, strict=True))
    model.train()
    return right / len(pairs)


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
    dev = sources.labelled_text(args.data / "text/sst2/dev.tsv")
    seen = " | ".join(text for text, _ in mixture.phrases)
    # Most dev phrases are parts of train sentences; these are the ones that are not, and whole enough.
    fresh = [(text, label) for text, label in dev if len(text.split()) >= 4 and text not in seen]
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
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=0.05)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimisers.step(rate(step, total_steps, 100))
            total, step = total + float(loss.detach()), step + 1
            if step % 200 == 0:
                print(f"step {step}/{total_steps} {time.time() - started:.0f} s", flush=True)
        run.log(
            {
                "epoch": epoch + 1,
                "loss": round(total / len(batches), 4),
                "sst2_dev": round(accuracy(model, tokenizer, dev, args.device), 4),
                "sst2_dev_fresh": round(accuracy(model, tokenizer, fresh, args.device), 4),
                "fresh": len(fresh),
                "seconds": round(time.time() - started),
            }
        )
        run.save(model, optimisers, {"epoch": epoch + 1, "step": step})

    save_half(model, args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
