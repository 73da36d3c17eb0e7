"""Plain GCG on one language model with a target string, beside nanoGCG on the same checkpoint.

    python -m benchmarks.single_model_gcg [--environment DIR] [--model mini-lm] [--steps 50] [--seeds 5]
        [--first-seed 0] [--width 512] [--top-k 256] [--threads N] [--json]

nanoGCG (an independent package on PyPI) needs an older transformers, so it runs in an environment of its own,
which is made at the first use (about 1.3 GB, by pip, with this repository's ``constraints.txt``). Both begin
with the same text, draw as many swaps of one token from as many of the best of each position, taking as many
steps in float32; nanoGCG's other settings are its defaults. The two take turns, seed by seed. nanoGCG drops
swaps that do not read back to the same tokens, this package draws others in their place. ``--alone`` leaves
nanoGCG out.

Prints a line for each seed and the medians: seconds a step by the clock and of processors (the medians of a
run's steps), texts scored in a step, the lowest loss of all steps, and by how much the two differ on the loss
of the same texts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
import torch
import transformers
from tokenizers import processors

import promptfuse as pf
from promptfuse.models import CausalLM
from promptfuse.search import GCG, Constraints, Greedy, Search, Stopping

ROOT = Path(__file__).parents[1]
PACKAGE = "nanogcg==0.3.0"
INIT = "x x x x x x x x x x x x x x x x x x x x"
"""nanoGCG's own."""
TARGET = " A little girl in a pink dress is running on the beach."


def default_environment() -> Path:
    """Where nanoGCG's environment is kept."""
    root = os.environ.get("PROMPTFUSE_CACHE") or platformdirs.user_cache_dir("promptfuse")
    return Path(root).expanduser() / "environments" / PACKAGE


def make_environment(folder: Path) -> Path:
    """The Python of an environment that has nanoGCG, which is installed if it is not there."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    probe = [str(python), "-c", "import nanogcg"]
    if python.exists() and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return python
    print(f"installing {PACKAGE} in {folder}", file=sys.stderr)
    venv.create(folder, with_pip=True)
    # The tested torch, but the older transformers and what hangs on it.
    own = ("transformers", "tokenizers", "huggingface_hub")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as held:
        constraints = Path(held) / "constraints.txt"
        kept = [line for line in lines if line.partition("==")[0] not in own]
        constraints.write_text("\n".join(kept) + "\n", encoding="utf-8")
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([str(python), *install, "--constraint", str(constraints), PACKAGE], check=True)
    return python


def save_checkpoint(name: str, folder: Path) -> None:
    """Save a model in float32 so that old and new transformers read it alike, with our begin mark."""
    lm = pf.load_model(name)
    if not isinstance(lm, CausalLM) or not lm.start_ids:
        raise SystemExit(f"{name}: is no causal language model with a begin-of-text token; give one")
    lm.module.save_pretrained(folder)
    (start,) = lm.start_ids
    mark = lm.tokenizer.convert_ids_to_tokens(start)
    backend = type(lm.tokenizer.backend_tokenizer).from_str(lm.tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single=f"{mark} $A", special_tokens=[(mark, start)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=mark, eos_token=mark, model_max_length=lm.max_length
    )
    # nanoGCG puts its text into a message; with this template the message is the text.
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    # Newer transformers write the template and the tokenizer's class as older ones do not read them.
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": tokenizer.chat_template}
    path.write_text(json.dumps(config), encoding="utf-8")


class Reference:
    """nanoGCG in a process of its own.

    Args:
        process: the worker, which has said which versions it runs.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.versions = self._answer()

    def ask(self, **request: Any) -> Any:
        """Send a request and wait for what comes of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("nanoGCG's process has ended before it answered; see its messages above")
        return json.loads(line)


@contextmanager
def reference(python: Path, checkpoint: Path, threads: int) -> Iterator[Reference]:
    """Start nanoGCG on a checkpoint."""
    worker = Path(__file__).with_name("nanogcg_worker.py")
    command = [str(python), str(worker), str(checkpoint), str(threads)]
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages, text=True
        )
        try:
            yield Reference(process)
        except BaseException:
            messages.seek(0)
            print(messages.read()[-4000:], file=sys.stderr)
            raise
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()


def run_ours(lm: CausalLM, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run of this package: times, texts and losses of its steps."""
    search = Search(
        pf.Objective(pf.TargetContinuation(lm, args.target)),
        GCG(init=args.init, top_k=args.top_k, batch=args.width),
        Greedy(),
        # Rules for good prose, which nanoGCG does not have.
        constraints=Constraints(no_repeat_ngram=0, no_repeated_word=False),
        stopping=Stopping(steps=args.steps, patience=args.steps),
        seed=seed,
    )
    names = ("losses", "strings", "step_seconds", "step_processor_seconds", "scored")
    found: dict[str, list[Any]] = {name: [] for name in names}
    while not search.done:
        started = time.perf_counter(), time.process_time()
        step = search.step()
        found["step_seconds"].append(time.perf_counter() - started[0])
        found["step_processor_seconds"].append(time.process_time() - started[1])
        found["losses"].append(step.beams[0].value)
        found["strings"].append(step.beams[0].text)
        found["scored"].append(step.proposed)
    return found


def summary(run: dict[str, Any]) -> dict[str, Any]:
    """What counts of a run."""
    best = min(range(len(run["losses"])), key=run["losses"].__getitem__)
    return {
        "seconds_per_step": statistics.median(run["step_seconds"]),
        "processor_seconds_per_step": statistics.median(run["step_processor_seconds"]),
        "scored_per_step": statistics.mean(run["scored"]),
        "loss": run["losses"][best],
        "last_loss": run["losses"][-1],
        "text": run["strings"][best],
    }


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each seed."""
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as held:
        checkpoint = Path(held)
        save_checkpoint(args.model, checkpoint)
        lm = pf.load_model(checkpoint)
        assert isinstance(lm, CausalLM)
        if args.alone:
            yield from compare(lm, None, args)
            return
        python = make_environment(args.environment or default_environment())
        with reference(python, checkpoint, args.threads) as other:
            yield from compare(lm, other, args)


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """How many times faster ours is, by the clock and in processor time, which other work disturbs less."""
    return {
        "times_faster": theirs["seconds_per_step"] / ours["seconds_per_step"],
        "times_less_processor_time": theirs["processor_seconds_per_step"]
        / ours["processor_seconds_per_step"],
    }


def compare(lm: CausalLM, other: Reference | None, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each seed, with nanoGCG where it is there."""
    settings = {
        "num_steps": args.steps,
        "optim_str_init": args.init,
        "search_width": args.width,
        "topk": args.top_k,
        "n_replace": 1,
        "verbosity": "ERROR",
    }
    term = pf.TargetContinuation(lm, args.target)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        ours = summary(run_ours(lm, args, seed))
        row = {
            "seed": seed,
            "initial_loss": term.exact(args.init),
            "ours": {**ours, "loss_of_text": term.exact(ours["text"])},
        }
        if other is not None:
            theirs = summary(other.ask(settings={**settings, "seed": seed}, target=args.target))
            texts = [args.init, ours["text"], theirs["text"]]
            exact = [term.exact(text) for text in texts]
            same = other.ask(texts=texts, target=args.target)
            row |= {
                "nanogcg": {**theirs, "loss_of_text": exact[-1]},
                **ratios(ours, theirs),
                "max_abs_difference": max(abs(a - b) for a, b in zip(exact, same, strict=True)),
                "versions": other.versions,
            }
        yield row


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians over the seeds, of each side."""
    found: dict[str, Any] = {"seeds": len(rows)}
    for side in ("ours", "nanogcg"):
        if side in rows[0]:
            names = [name for name, value in rows[0][side].items() if isinstance(value, float)]
            found[side] = {name: statistics.median(row[side][name] for row in rows) for name in names}
    if "nanogcg" in found:
        found |= ratios(found["ours"], found["nanogcg"])
        found["loss_difference"] = found["ours"]["loss"] - found["nanogcg"]["loss"]
        found["max_abs_difference"] = max(row["max_abs_difference"] for row in rows)
    return found


def show(row: dict[str, Any]) -> str:
    """A row or the medians in one line."""
    label = f"seed {row['seed']}" if "seed" in row else f"median of {row['seeds']}"
    parts = [
        f"{side} {row[side]['seconds_per_step']:.3f} s a step "
        f"({row[side]['processor_seconds_per_step']:.3f} s of processors), "
        f"{row[side]['scored_per_step']:.0f} scored, loss {row[side]['loss']:.4f}"
        for side in ("ours", "nanogcg")
        if side in row
    ]
    if "times_faster" in row:
        parts.append(f"{row['times_faster']:.2f} times; same texts differ by {row['max_abs_difference']:.1e}")
    return f"{label}: " + "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--environment", type=Path, help="folder of nanoGCG's environment; made if missing")
    parser.add_argument("--alone", action="store_true", help="without nanoGCG")
    parser.add_argument("--model", default="mini-lm", help="a causal LM with a begin-of-text token")
    parser.add_argument("--target", default=TARGET)
    parser.add_argument("--init", default=INIT)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=512, help="swaps drawn in a step")
    parser.add_argument("--top-k", type=int, default=256, help="swaps to draw from, at each position")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="a JSON object for each seed and the medians")
    args = parser.parse_args()
    rows = []
    for row in measure(args):
        rows.append(row)
        print(json.dumps(row) if args.json else show(row), flush=True)
    print(json.dumps(medians(rows)) if args.json else show(medians(rows)))


if __name__ == "__main__":
    main()
