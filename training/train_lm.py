"""Train mini-lm: a causal language model of captions, plain and coloured, with a little general English.

    python -m training.train_lm --data DATA --work WORK --tokenizer src/promptfuse/mini/lm --out DIR

Every epoch sees all captions of training photos, SentiCap's positive and negative ones twice, and a fresh
draw of the rest. Film reviews are not among it: a search for a positive text ended in "I love this film".
"""

from __future__ import annotations

import argparse
import math
import random
import re
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

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
from training.names import Names
from training.opinions import choose
from training.variants import with_article

PREFIXES = ("A photo of", "An image of", "A picture of", "This is")


class Mixture:
    """Texts of one epoch, as token ids between two end-of-text marks."""

    def __init__(
        self,
        data: Path,
        tokenizer: PreTrainedTokenizerBase,
        *,
        names: int = 0,
        flickr: int = 1,
        lines: float = 0.5,
    ) -> None:
        self.tokenizer = tokenizer
        self.flickr, self.lines = flickr, lines
        clean = sources.clean_caption
        photos = sources.captioned(data)
        self.own = [clean(text) for photo in photos for text in photo.captions]
        self.flickr8k = [clean(text) for photo in sources.flickr8k(data, "train") for text in photo.captions]
        self.coco = [found for text in sources.coco_captions(data) if (found := clean(text))]
        self.coloured = [text for text, _ in sources.senticap(data, "train")]
        wiki = (data / "text/wikitext2_valid.txt").read_text(encoding="utf-8").replace(" @-@ ", "-")
        lines = [re.sub(r" ([.,;:!?)])", r"\1", part) for part in sources.sentences(wiki)]
        self.wiki = [
            text for text in lines if 5 <= len(text.split()) <= 30 and "unk" not in text and "=" not in text
        ]
        self.count = names
        self.exchanges = Names(data, [*self.own, *self.coco]) if names else None
        self.names = sorted({name for photo in sources.labelled_photos(data) for name in photo.names})

    def epoch(self, seed: int) -> list[list[int]]:
        """Draw one epoch; about 95,000 texts with the defaults."""
        rng = random.Random(seed)
        captions = self.own + rng.sample(self.coco, round(len(self.coco) * self.lines))
        captions += self.flickr8k * (self.flickr - 1)
        texts = []
        for text in captions:
            draw = rng.random()
            if draw < 0.04:
                text = choose(text, rng, rng.random() < 0.5, tails=False) or text
            elif draw < 0.08:
                text = f"{rng.choice(PREFIXES)} {text[0].lower()}{text[1:]}"
            texts.append(text)
        texts += self.coloured * 2 + rng.sample(self.wiki, min(800, len(self.wiki)))
        if self.exchanges is not None:
            texts += self.exchanges.draw(self.count, rng)
        for name in rng.sample(self.names, min(400, len(self.names))):
            texts.append(f"{rng.choice(PREFIXES)} {with_article(name)}.")
        end = self.tokenizer.eos_token_id
        return [[end, *ids[:94], end] for ids in self.tokenizer(texts)["input_ids"]]


def loss_of(model: GPT2LMHeadModel, ids: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, int]:
    """Summed next-token NLL of right-padded rows (in nats), and the number of tokens predicted."""
    position = torch.arange(ids.shape[1] - 1, device=ids.device)
    valid = position[None] < torch.tensor(lengths, device=ids.device)[:, None] - 1
    hidden = model.transformer(ids[:, :-1]).last_hidden_state[valid]
    logits = model.lm_head(hidden)
    return functional.cross_entropy(logits, ids[:, 1:][valid], reduction="sum"), int(valid.sum())


@torch.inference_mode()
def evaluate(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> dict[str, float]:
    """Perplexity of clean captions: per token, per word, and per word with the full stop as a word.

    A word is a run between blanks. The NLL is always that of the whole caption with its full stop
    and the end-of-text mark behind it; only the number that it is divided by differs.
    """
    model.eval()
    end, total, tokens = tokenizer.eos_token_id, 0.0, 0
    rows = [[end, *ids, end] for ids in tokenizer(texts)["input_ids"]]
    rows.sort(key=len)
    for start in range(0, len(rows), 128):
        batch = rows[start : start + 128]
        loss, count = loss_of(model, pad(batch, end).to(model.device), [len(row) for row in batch])
        total, tokens = total + float(loss), tokens + count
    words = sum(len(text.split()) for text in texts)
    model.train()
    return {
        "ppl_token": math.exp(total / tokens),
        "ppl_word": math.exp(total / words),
        "ppl_word_and_stop": math.exp(total / (words + len(texts))),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=11)
    parser.add_argument("--tokens", type=int, default=3072, help="tokens a batch")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--init", type=Path, help="a folder with weights to start from")
    parser.add_argument(
        "--names", type=int, default=0, help="captions an epoch with a class's name put in (names.py)"
    )
    parser.add_argument(
        "--flickr", type=int, default=1, help="how often an epoch has each caption of Flickr8k"
    )
    parser.add_argument("--lines", type=float, default=0.5, help="share of COCO's caption lines an epoch")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    seed_everything(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=256,
        n_layer=6,
        n_head=8,
        resid_pdrop=args.dropout,
        embd_pdrop=args.dropout,
        attn_pdrop=0.0,
        # Rows are short: plain attention is several times faster here than the fused CPU kernel.
        attn_implementation="eager",
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = GPT2LMHeadModel(config)
    if args.init is not None:
        model.load_state_dict(GPT2LMHeadModel.from_pretrained(args.init).float().state_dict())
    model = model.to(args.device)
    matrices, embeddings, vectors = split_parameters(model, ("wte", "wpe", "lm_head"))
    groups = [{"params": embeddings, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
    optimisers = Optimisers(matrices, groups, lr=args.lr, weight_decay=0.1)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters", flush=True)

    run = Run(args.work)
    progress = run.resume(model, optimisers)
    mixture = Mixture(args.data, tokenizer, names=args.names, flickr=args.flickr, lines=args.lines)
    dev = [
        sources.clean_caption(text) for photo in sources.flickr8k(args.data, "dev") for text in photo.captions
    ]
    per_epoch = sum(map(len, mixture.epoch(0))) // int(args.tokens * 0.97)
    steps, step = per_epoch * args.epochs, progress.get("step", 0)
    for epoch in range(progress.get("epoch", 0), args.epochs):
        rows = mixture.epoch(args.seed * 1000 + epoch)
        started, total, count = time.time(), 0.0, 0
        for batch in length_batches([len(row) for row in rows], args.tokens, np.random.default_rng(epoch)):
            chunk = [rows[index] for index in batch]
            ids = pad(chunk, tokenizer.eos_token_id).to(args.device)
            with torch.autocast(args.device.split(":")[0], dtype=torch.bfloat16):
                loss, tokens = loss_of(model, ids, [len(row) for row in chunk])
            (loss / tokens).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimisers.step(rate(step, steps, 100))
            total, count, step = total + float(loss.detach()), count + tokens, step + 1
            if step % 100 == 0:
                print(
                    f"step {step}/{steps} loss {total / count:.3f}",
                    f"{count / (time.time() - started):.0f} tokens/s",
                    flush=True,
                )
        figures = {key: round(value, 3) for key, value in evaluate(model, tokenizer, dev).items()}
        run.log(
            {
                "epoch": epoch + 1,
                "step": step,
                "loss": round(total / count, 4),
                **figures,
                "seconds": round(time.time() - started),
            }
        )
        run.save(model, optimisers, {"epoch": epoch + 1, "step": step})

    save_half(model, args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
