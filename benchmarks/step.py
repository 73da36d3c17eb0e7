"""One AutoDAN step at the shapes of GPT-2 (124M) and CLIP ViT-B/32's text tower, against the naive path.

    python -m benchmarks.step [--beams 4] [--candidates 256] [--words 10] [--steps 5] [--naive 32]
        [--threads N] [--processor-time] [--tiny] [--json]

A step reads the beams with the language model, takes the gradient at a placeholder, ranks the vocabulary and
scores every candidate exactly. The naive path scores the same candidates one at a time, each encoded whole,
with no cache: ``Objective.exact``. It is timed on ``--naive`` of the candidates, evenly spread, and counted
up; 0 for all of them. The floor is the step's matrix products at the rate that this machine reaches, right
before and after the step, on products of the text tower's shapes, by the fastest library at hand: a machine
that others use too is not equally fast from one second to the next. ``times_floor_torch`` is against the rate
of ``torch.nn.functional.linear``. Steps differ in their products, since candidates have one, two or more
tokens: ``times_floor`` is the median over steps of each one's time by its own floor, and seconds and floor
are those of that step.

Prints ``seconds, naive_seconds, floor_seconds, times_naive, times_floor, max_abs_difference``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import promptfuse as pf
from benchmarks import shapes
from promptfuse.memory import reuse_memory
from promptfuse.models import CausalLM, ImageTextModel
from promptfuse.models.products import linear
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


Clock = Callable[[], float]


def median_seconds(run: Callable[[], Any], repeats: int, clock: Clock) -> float:
    """Median time of a few runs behind one that does not count."""
    run()
    taken = []
    for _ in range(repeats):
        started = clock()
        run()
        taken.append(clock() - started)
    return statistics.median(taken)


class Products:
    """Products of a transformer block, as fast as this machine can be seen to do them.

    Args:
        product: what does them.
        width: of the block.
        inner: of its feed-forward part.
        clock: seconds.
        rows: numbers of rows, of which the fastest is taken.
    """

    def __init__(
        self,
        product: Callable[[torch.nn.Linear, Tensor], Tensor],
        width: int,
        inner: int,
        clock: Clock,
        rows: Sequence[int] = (256, 512, 1024, 2048),
    ) -> None:
        pairs = [(width, width)] * 4 + [(width, inner), (inner, width)]
        self.product, self.clock = product, clock
        self.modules = [torch.nn.Linear(narrow, wide).requires_grad_(False) for narrow, wide in pairs]
        self.flops = 2 * sum(narrow * wide for narrow, wide in pairs)
        self.inputs: dict[int, Tensor] = {}
        rates = {}
        for count in rows:
            self.inputs = {size: torch.randn(count, size) for size in (width, inner)}
            rates[count] = self.rate(9)
        self.count = max(rates, key=lambda count: rates[count])
        self.inputs = {size: torch.randn(self.count, size) for size in (width, inner)}
        self.best = rates[self.count]

    @torch.no_grad()
    def rate(self, repeats: int = 5) -> float:
        """FLOP/s, median of a few runs."""
        rows = next(iter(self.inputs.values())).shape[0]

        def run() -> None:
            for module in self.modules:
                self.product(module, self.inputs[module.in_features])

        return rows * self.flops / median_seconds(run, repeats, self.clock)


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
    known = {text: len(row) for text, row in zip(parents, clip.open_rows(parents), strict=True)}
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
    reuse_memory()  # As the command line does.
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
    width = clip.module.config.text_config.hidden_size
    plain = Products(lambda module, inputs: module(inputs), width, 4 * width, clock)
    packed = Products(linear, width, 4 * width, clock)
    fastest = max(plain, packed, key=lambda products: products.best)
    rates = [fastest.rate()]
    taken: list[tuple[float, float, float]] = []  # Seconds, products, and the rate around it, of each step.
    for _ in range(args.steps):
        started = clock()
        search.step()
        seconds = clock() - started
        rates.append(fastest.rate())
        taken.append((seconds, step_flops(lm, clip, term, method.subtokens), sum(rates[-2:]) / 2))
    times_floor = [seconds * rate / flops for seconds, flops, rate in taken]
    middle = sorted(range(len(taken)), key=lambda step: times_floor[step])[(len(taken) - 1) // 2]
    seconds, flops, rate = taken[middle]
    texts, _, found = term.asked
    stride = max(1, len(texts) // args.naive) if args.naive else 1
    chosen = list(range(0, len(texts), stride))
    started = clock()
    exact = [objective.exact(texts[index]).terms[term.name] for index in chosen]
    naive = (clock() - started) / len(chosen) * len(texts)
    return {
        "beams": args.beams,
        "candidates": len(texts),
        "words": args.words,
        "threads": args.threads,
        "steps": args.steps,
        "seconds": seconds,
        "each_seconds": [one for one, _, _ in taken],
        "each_times_floor": times_floor,
        "naive_seconds": naive,
        "naive_timed": len(chosen),
        "gflop": flops / 1e9,
        "gflop_per_second": rate / 1e9,
        "each_gflop_per_second": [one / 1e9 for one in rates],
        "gflop_per_second_torch": rate * plain.best / fastest.best / 1e9,
        "floor_seconds": flops / rate,
        "times_naive": naive / seconds,
        "times_floor": times_floor[middle],
        "times_floor_torch": times_floor[middle] * plain.best / fastest.best,
        "max_abs_difference": max(
            abs(float(found[index]) - value) for index, value in zip(chosen, exact, strict=True)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=256, help="for each beam")
    parser.add_argument("--words", type=int, default=10, help="of the prompt that the search begins with")
    parser.add_argument("--steps", type=int, default=5, help="the median of so many is taken")
    parser.add_argument("--naive", type=int, default=32, help="candidates timed one at a time, 0 for all")
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
        f"{row['seconds']:.2f} s; naive {row['naive_seconds']:.1f} s ({row['times_naive']:.0f} times), "
        f"floor {row['floor_seconds']:.2f} s ({row['times_floor']:.2f} times; {row['gflop']:.0f} GFLOP at "
        f"{row['gflop_per_second']:.0f} GFLOP/s); max abs difference {row['max_abs_difference']:.1e}"
    )


if __name__ == "__main__":
    main()
