"""Our streamed fit of one map beside a dense block-circulant one on the same words, and how it scales.

    python -m benchmarks.adapter_fit [--words 16384] [--widths 1024 512] [--subtokens 1 2 4] [--json]
    python -m benchmarks.adapter_fit --scaling [--counts 10000 100000 1000000] [--plot FILE.png]

The dense references are the textbook's, in single precision:

* ``bcirc``: the block-circulant matrix of the stacked embeddings, (words n, d_A n), and its pseudo-inverse.
* ``blocks``: the pseudo-inverse of each of the n complex blocks to which a full FFT reduces that matrix.

Ours accumulates moments in double precision, batch after batch, and solves from them. Tables of normal
numbers, words of n sub-tokens in both models. Each fit runs in a process of its own; ``MiB`` is the
growth of its peak resident memory over what it had with the tables and ids in place. Core seconds, which
``--json`` shows as well, leave out the time in which other programs had the cores.

``--scaling`` times the whole of ``Adapter.fit`` (spelling by two tokenizers, held-out choice of the ridge,
all maps, report) on words of two sub-tokens. Its processes give memory back to the system as soon as it
is freed (``MALLOC_MMAP_THRESHOLD_``), so that the peak is what the fit holds: by default glibc keeps freed
blocks of some megabytes, and over a million words these come to some hundred MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from promptfuse.adapters import Adapter, Moments
from promptfuse.adapters.fit import PRESETS, embed_words

VOCABULARY = 32_768
BATCH_NUMBERS = 2**21  # as in promptfuse.adapters.fit


@dataclass(frozen=True)
class Data:
    """Two tables and the ids of words in each, (words, n)."""

    table_a: Tensor
    table_b: Tensor
    ids_a: Tensor
    ids_b: Tensor


def make_data(words: int, widths: tuple[int, int], n: int) -> Data:
    """Random tables and words; the same for the same arguments."""
    generator = torch.Generator().manual_seed(0)
    tables = [torch.randn(VOCABULARY, width, generator=generator) for width in widths]
    ids = [torch.randint(VOCABULARY, (words, n), generator=generator) for _ in widths]
    return Data(*tables, *ids)


def streamed(data: Data) -> Tensor:
    """Ours, (d_A, d_B, n)."""
    n, widths = data.ids_a.shape[1], (data.table_a.shape[1], data.table_b.shape[1])
    moments = Moments(*widths, n)
    size = max(64, BATCH_NUMBERS // (max(widths) * n))
    for ids_a, ids_b in zip(data.ids_a.split(size), data.ids_b.split(size), strict=True):
        ones = torch.ones(len(ids_a), dtype=torch.float64)
        moments.update(embed_words(data.table_a, ids_a), embed_words(data.table_b, ids_b), ones)
    return moments.solve(0.0, PRESETS["paper"].rcond).float()


def bcirc(x: Tensor) -> Tensor:
    """(N, d, n) to the block-circulant matrix of its frontal slices, (n N, n d)."""
    n = x.shape[-1]
    return torch.cat([torch.cat([x[..., (r - s) % n] for s in range(n)], dim=1) for r in range(n)])


def dense(data: Data) -> Tensor:
    """By the pseudo-inverse of the block-circulant matrix, (d_A, d_B, n)."""
    x, y = embed_words(data.table_a, data.ids_a), embed_words(data.table_b, data.ids_b)
    unfolded = torch.linalg.pinv(bcirc(x)) @ torch.cat(y.unbind(-1))
    return torch.stack(unfolded.split(x.shape[1]), dim=-1)


def blocks(data: Data) -> Tensor:
    """By the pseudo-inverses of the complex blocks of a full FFT, (d_A, d_B, n)."""
    x, y = embed_words(data.table_a, data.ids_a), embed_words(data.table_b, data.ids_b)
    x_hat, y_hat = torch.fft.fft(x), torch.fft.fft(y)
    found = [torch.linalg.pinv(x_hat[..., s]) @ y_hat[..., s] for s in range(x.shape[-1])]
    return torch.fft.ifft(torch.stack(found, dim=-1)).real


WAYS: dict[str, Callable[[Data], Tensor]] = {"ours": streamed, "bcirc": dense, "blocks": blocks}


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What some work gives, its seconds by the clock and of all cores, and its peak memory."""
    before, started, busy = peak_mib(), time.perf_counter(), time.process_time()
    found = work()
    row = {"seconds": time.perf_counter() - started, "core_seconds": time.process_time() - busy}
    return found, {**row, "mib": peak_mib() - before}


def warm_up() -> None:
    """Let the libraries load what they load at first use, in all types and with all threads."""
    for dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        small = torch.randn(512, 256, dtype=dtype)
        gram = torch.addmm(torch.eye(256, dtype=dtype), small.mH, small)
        factor = torch.linalg.cholesky(gram)
        torch.cholesky_solve(gram, factor)
        torch.linalg.solve_triangular(factor, gram, upper=False)
        torch.linalg.eigh(gram[:64, :64])
        torch.linalg.pinv(small[:64, :64])
    torch.fft.irfft(torch.fft.rfft(torch.randn(64, 64, dtype=torch.float64)))


@dataclass(frozen=True)
class Made:
    """All that `Adapter.fit` asks of a model."""

    name: str
    tokenizer: Any
    embedding_table: Tensor
    fingerprint: str = "made"


def made_model(name: str, width: int, letters: str) -> Made:
    """A model with a token for every letter."""
    generator = torch.Generator().manual_seed(len(name) + width)
    tokenizer = Tokenizer(models.WordLevel({letter: k for k, letter in enumerate(letters)}, letters[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    table = torch.randn(len(letters), width, generator=generator)
    return Made(name, PreTrainedTokenizerFast(tokenizer_object=tokenizer), table)


def whole_fit(words: int, widths: tuple[int, int]) -> dict[str, float]:
    """Seconds and memory of `Adapter.fit` on words of two letters."""
    letters = "a" + "".join(map(chr, range(0x4E00, 0x4E00 + 1100)))
    pair = [made_model(name, width, letters) for name, width in zip("AB", widths, strict=True)]
    count = len(letters) - 1
    chosen = {f" {letters[1 + k // count]}{letters[1 + k % count]}": 1.0 for k in range(words)}
    warm_up()
    Adapter.fit(*pair, words=dict.fromkeys(list(chosen)[:1000], 1.0))
    adapter, row = timed(lambda: Adapter.fit(*pair, words=chosen))
    assert sum(adapter.report().words.values()) == words
    return row


def child(args: argparse.Namespace) -> None:
    """One fit, in a process of its own; prints its row."""
    torch.set_num_threads(args.threads)
    widths = (args.widths[0], args.widths[1])
    if args.child == "whole":
        print(json.dumps(whole_fit(args.words, widths)))
        return
    data = make_data(args.words, widths, args.subtokens[0])
    warm_up()
    found, row = timed(lambda: WAYS[args.child](data))
    np.save(args.out, found.numpy())
    print(json.dumps(row))


def in_child(args: argparse.Namespace, way: str, words: int, n: int, out: Path) -> dict[str, float]:
    """Run `child` and read its row."""
    options = {"child": way, "words": words, "subtokens": n, "threads": args.threads, "out": out}
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    widths = ["--widths", *map(str, args.widths)]
    command = [sys.executable, "-m", "benchmarks.adapter_fit", *flags, *widths]
    environment = {**os.environ, **({"MALLOC_MMAP_THRESHOLD_": str(2**18)} if way == "whole" else {})}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    row: dict[str, float] = json.loads(done.stdout)
    return row


def compare(args: argparse.Namespace) -> None:
    """Print a row for each number of sub-tokens."""
    with tempfile.TemporaryDirectory() as folder:
        for n in args.subtokens:
            rows, maps = {}, {}
            for way in ("ours", args.reference):
                out = Path(folder) / f"{way}.npy"
                rows[way] = in_child(args, way, args.words, n, out)
                maps[way] = np.load(out)
            ours, reference = rows["ours"], rows[args.reference]
            row = {
                "words": args.words, "widths": args.widths, "subtokens": n, "threads": args.threads,
                "reference": args.reference,
                "seconds": ours["seconds"], "reference_seconds": reference["seconds"],
                "ratio": reference["seconds"] / ours["seconds"],
                "core_seconds": ours["core_seconds"], "reference_core_seconds": reference["core_seconds"],
                "mib": ours["mib"], "reference_mib": reference["mib"],
                "difference": float(np.abs(maps["ours"] - maps[args.reference]).max()),
                "largest": float(np.abs(maps["ours"]).max()),
            }  # fmt: skip
            if args.json:
                print(json.dumps(row), flush=True)
            else:
                print(
                    f"n = {n}: ours {row['seconds']:.2f} s, {row['mib']:.0f} MiB; {args.reference} "
                    f"{row['reference_seconds']:.2f} s, {row['reference_mib']:.0f} MiB; ratio "
                    f"{row['ratio']:.1f}; max abs difference {row['difference']:.1e} "
                    f"(largest entry {row['largest']:.2f})",
                    flush=True,
                )


def scale(args: argparse.Namespace) -> None:
    """Print a row for each number of words, and draw them."""
    rows = []
    for count in args.counts:
        row = {"words": count, "widths": args.widths, "threads": args.threads}
        row |= in_child(args, "whole", count, 2, Path("none"))
        rows.append(row)
        times = f"{row['seconds']:.2f} s, {row['core_seconds']:.2f} core seconds"
        line = f"{count} words: {times}, {row['mib']:.0f} MiB"
        print(json.dumps(row) if args.json else line, flush=True)
    if args.plot is None:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    ends = [args.counts[0], args.counts[-1]]
    titles = {"core_seconds": "core seconds", "mib": "MiB beyond models and words"}
    for axis, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        axis.plot(args.counts, [row[key] for row in rows], "o-", color="#3b6ea5")
        axis.set_xscale("log")
        axis.set_xlabel("words")
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        if key == "core_seconds":
            axis.set_yscale("log")
            linear = [
                row[key] * count / args.counts[-1] for row, count in zip(rows[-1:] * 2, ends, strict=True)
            ]
            axis.plot(ends, linear, ":", color="#8a8a8a", label="linear")
            axis.legend()
        else:
            axis.set_ylim(bottom=0)
    figure.suptitle(f"Adapter.fit, {args.widths[0]} to {args.widths[1]}, two sub-tokens a word")
    figure.savefig(args.plot, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--words", type=int, default=16_384)
    parser.add_argument("--widths", type=int, nargs=2, default=[1024, 512], metavar=("A", "B"))
    parser.add_argument("--subtokens", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--reference", choices=("bcirc", "blocks"), default="bcirc")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scaling", action="store_true", help="the whole fit on more and more words")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000, 1_000_000]
    )
    parser.add_argument("--plot", type=Path, help="with --scaling: where to draw the curves")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
    elif args.scaling:
        scale(args)
    else:
        compare(args)


if __name__ == "__main__":
    main()
