"""One AutoDAN step at the shapes of GPT-2 (124M) and CLIP ViT-B/32's text tower, against the naive path.

    python -m benchmarks.step [--beams 4] [--candidates 256] [--words 10] [--steps 5] [--naive 32]
        [--threads N] [--processor-time] [--tiny] [--json]

A step reads the beams with the language model, takes the gradient at a placeholder, ranks the vocabulary and
scores every candidate exactly. Beside it stand three others:

- **one text at a time**, the naive path: the same candidates, each encoded whole, with no cache:
  ``Objective.exact``. It is timed on ``--naive`` of the candidates, evenly spread, and counted up; 0 for all.
- **plain batched**: what is written first with ``transformers`` alone. The language model reads the beams in
  one padded batch, the text tower all candidates, each whole, in another one. No cache of ours, no gradient;
  once as torch multiplies (``batched_seconds``), once with its layers' products by oneDNN, which the package
  uses (``batched_onednn_seconds``).
- **the floor**: the step's matrix products at the best rate that was seen in this run at any shape: blocks of
  the text tower with 256 to 2,048 rows and the products of the step's own shapes that cost most, each by
  torch and by oneDNN, before the steps and, the fastest of them, after each step; and the steps themselves.
  So no step is faster than its floor. ``rate_of`` says where the best rate was seen.

The other ways read the candidates of the first steps, about two words behind the prompt; a step takes as long
with longer texts, they do not. Steps differ in their products, since candidates have one, two or more tokens:
``times_floor`` is the median
over steps of each one's time by its own floor, and seconds and floor are those of that step.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import promptfuse as pf
from benchmarks import shapes
from benchmarks.rates import Rates, ShapesOf, Work, best_seconds, floor_rate
from promptfuse._utils.memory import retain_heap
from promptfuse.models import CausalLM, ImageTextModel
from promptfuse.search import AutoDAN, BeamSearch, Search


class Recorded(pf.ImageSimilarity):
    """An image term that keeps what it was last asked."""

    asked: tuple[list[str], list[str], Tensor]

    def score(
        self, texts: Sequence[str], batch_size: int | None = None, parents: Sequence[str] | None = None
    ) -> Tensor:
        """See ``Term.score``."""
        found = super().score(texts, batch_size, parents)
        self.asked = list(texts), list(parents or []), found
        return found


@torch.no_grad()
def plain_batched(lm: CausalLM, clip: ImageTextModel, term: Recorded) -> Tensor:
    """The image losses of the candidates as transformers alone gives them, and the beams' next tokens.

    Returns:
        (candidates,) losses.
    """
    texts, parents, _ = term.asked
    beams = list(dict.fromkeys(parents))
    ids = lm.tokenizer(beams)["input_ids"]
    lengths = torch.tensor([len(row) for row in ids])
    width = int(lengths.max())
    rows = torch.tensor([row + [0] * (width - len(row)) for row in ids], device=lm.device)
    mask = (torch.arange(width) < lengths[:, None]).to(lm.device)
    logits = lm.module(rows, attention_mask=mask).logits
    logits[torch.arange(len(beams)), lengths - 1].log_softmax(-1)
    batch = clip.tokenizer(texts, padding=True, return_tensors="pt").to(clip.device)
    found = clip.module.get_text_features(**batch)
    features = torch.nn.functional.normalize(getattr(found, "pooler_output", found).float(), dim=-1)
    return 1 - features @ term.features.to(features)


def tower_flops(clip: ImageTextModel, new: Sequence[int], context: Sequence[int]) -> float:
    """Products for branches of so many new tokens behind so many known ones.

    In the last block only keys and values of all tokens are needed, and the rest for one.
    """
    config = clip.module.config.text_config
    width, inner, depth = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    keys, rest = 2 * 2 * width**2, 2 * (2 * width**2 + 2 * width * inner)
    total = 0.0
    for count, known in zip(new, context, strict=True):
        total += count * (depth * keys + (depth - 1) * rest) + rest
        total += 4 * width * (known + count) * (count * (depth - 1) + 1)
        total += 2 * width * config.projection_dim
    return total


def lm_flops(lm: CausalLM, beams: int, length: int) -> float:
    """Products for one more token behind each beam."""
    config = lm.module.config
    block = 24 * config.n_embd**2 + 4 * config.n_embd * length
    return float(beams * (config.n_layer * block + 2 * config.n_embd * config.vocab_size))


def step_flops(lm: CausalLM, clip: ImageTextModel, term: Recorded, subtokens: int) -> float:
    """Products of one step: beams, gradient, estimates and candidates."""
    texts, parents, _ = term.asked
    rows, _ = clip.token_rows(texts)
    known = {text: len(row) for text, row in zip(parents, clip.unterminated_rows(parents), strict=True)}
    context = [known[parent] for parent in parents]
    new = [len(row) - length for row, length in zip(rows, context, strict=True)]
    total = tower_flops(clip, [max(count, 1) for count in new], context)
    beams = list(known.values())
    total += tower_flops(clip, [1] * len(beams), beams)  # The beam's last token, kept for the next step.
    slots = [(size + 1, length) for length in beams for size in range(1, subtokens + 1)]
    # Backwards, through the activations only, costs as much as forwards.
    total += 2 * tower_flops(clip, [count for count, _ in slots], [length for _, length in slots])
    table = clip.embedding_table
    # The slot of m placeholders has m gradients.
    total += 2 * table.numel() * len(beams) * (1 + subtokens * (subtokens + 1) // 2)
    return total + lm_flops(lm, len(beams), max(beams))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time the steps, the naive path and the machine."""
    torch.set_num_threads(args.threads)
    retain_heap()  # As the command line does.
    clock = time.process_time if args.processor_time else time.perf_counter
    size = shapes.TINY if args.tiny else shapes.REAL
    lm, clip = shapes.gpt2(size), shapes.clip(size)
    term = Recorded(clip, shapes.photo())
    objective = pf.Objective(pf.Fluency(lm), term)
    method = AutoDAN(candidates=args.candidates)
    search = Search(
        objective, method, BeamSearch(args.beams), prefix=shapes.prompt(args.words, size), steps=10**6
    )
    search.step()  # From the prefix to as many beams as asked for.
    search.step()
    with ShapesOf() as shapes_of:
        search.step()
    # The others read these texts: later ones have grown, which costs them time and a step none.
    first = term.asked
    width = clip.module.config.text_config.hidden_size
    pairs = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
    works = [
        Work(f"a block of {rows} rows", [(rows, *pair) for pair in pairs]) for rows in (256, 512, 1024, 2048)
    ]
    works += [Work(f"{' x '.join(map(str, shape))}", [shape]) for shape in shapes_of.dearest(6)]
    rates = Rates(works, clock)
    taken: list[tuple[float, float]] = []  # Seconds and products of each step.
    for _ in range(args.steps):
        started = clock()
        search.step()
        taken.append((clock() - started, step_flops(lm, clip, term, method.subtokens)))
        rates.again()
    rate, rate_of = floor_rate(rates.best(), taken)
    times_floor = [seconds * rate / flops for seconds, flops in taken]
    middle = sorted(range(len(taken)), key=lambda step: times_floor[step])[(len(taken) - 1) // 2]
    seconds, flops = taken[middle]
    term.asked = first
    texts, _, found = first
    stride = max(1, len(texts) // args.naive) if args.naive else 1
    chosen = list(range(0, len(texts), stride))
    started = clock()
    exact = [objective.exact(texts[index]).terms[term.name] for index in chosen]
    naive = (clock() - started) / len(chosen) * len(texts)
    batched = best_seconds(lambda: plain_batched(lm, clip, term), args.batched, clock)
    with clip.fast_products(), lm.fast_products():
        batched_onednn = best_seconds(lambda: plain_batched(lm, clip, term), args.batched, clock)
    return {
        "beams": args.beams,
        "candidates": len(texts),
        "words": args.words,
        "threads": args.threads,
        "steps": args.steps,
        "seconds": seconds,
        "each_seconds": [one for one, _ in taken],
        "each_times_floor": times_floor,
        "naive_seconds": naive,
        "naive_timed": len(chosen),
        "batched_seconds": batched,
        "batched_onednn_seconds": batched_onednn,
        "gflop": flops / 1e9,
        "gflop_per_second": rate / 1e9,
        "rate_of": rate_of,
        "gflop_per_second_torch": rates.best("torch")[0] / 1e9,
        "floor_seconds": flops / rate,
        "times_naive": naive / seconds,
        "times_batched": batched / seconds,
        "times_batched_onednn": batched_onednn / seconds,
        "times_floor": times_floor[middle],
        "max_abs_difference": max(
            abs(float(found[index]) - value) for index, value in zip(chosen, exact, strict=True)
        ),
        "max_abs_difference_batched": float((plain_batched(lm, clip, term).cpu() - found.cpu()).abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=256, help="for each beam")
    parser.add_argument("--words", type=int, default=10, help="of the prompt that the search begins with")
    parser.add_argument("--steps", type=int, default=5, help="the median of so many is taken")
    parser.add_argument("--naive", type=int, default=32, help="candidates timed one at a time, 0 for all")
    parser.add_argument(
        "--batched", type=int, default=3, help="runs of the plain batched path, the best counts"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that it runs")
    parser.add_argument(
        "--processor-time", action="store_true", help="of all threads: other programs disturb it less"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    row = measure(args)
    if args.json:
        print(json.dumps(row))
        return
    print(
        f"{row['beams']} beams, {row['candidates']} candidates, {row['threads']} threads: "
        f"{row['seconds']:.2f} s a step\n"
        f"one text at a time {row['naive_seconds']:.1f} s: {row['times_naive']:.0f} times\n"
        f"plain batched {row['batched_seconds']:.1f} s: {row['times_batched']:.1f} times; with oneDNN "
        f"{row['batched_onednn_seconds']:.1f} s: {row['times_batched_onednn']:.1f} times\n"
        f"floor {row['floor_seconds']:.2f} s ({row['gflop']:.0f} GFLOP at {row['gflop_per_second']:.0f} "
        f"GFLOP/s, the rate of {row['rate_of']}): the step takes {row['times_floor']:.2f} times as long\n"
        f"largest difference of a loss from the naive path {row['max_abs_difference']:.1e}, "
        f"of the plain batched one {row['max_abs_difference_batched']:.1e}"
    )


if __name__ == "__main__":
    main()
