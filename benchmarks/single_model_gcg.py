"""Plain GCG on one language model with target strings, beside nanoGCG and TROPT on the same checkpoint.

    python -m benchmarks.single_model_gcg [--model mini-lm] [--start auto] [--targets 1] [--seeds 5]
        [--steps 50] [--width 512] [--top-k 256] [--rivals nanogcg,tropt] [--environment DIR]
        [--threads N] [--out ROWS.jsonl] [--plot FILE.png] [--json]

The rivals, independent packages on PyPI, need other versions of transformers, so each runs in an
environment of its own, which is made at the first use (1.3 to 1.6 GB each, by pip, with this repository's
``constraints.txt``). All begin with the same text and draw as many swaps of one token from as many of the
best of each position, taking as many steps in float32, without special and other than ASCII tokens; their
other settings are their defaults. Each is a process; they take turns, run by run. The rivals drop swaps
that do not read back to the same tokens, this package draws others in their place. ``--alone`` leaves the
rivals out.

``--start chat`` puts the text into the user's turn of the model's chat template, with the target as the
answer. With ``--out``, finished rows are kept in a file and not measured again.

Prints a line for each target and seed, and the medians: seconds a step by the clock and of processors (the
medians of a run's steps), texts scored in a step, the lowest loss of all steps and of those within the time
that the fastest took for all of its steps, the peak memory of the process, and by how much the packages
differ on the loss of the same texts.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import torch

import promptfuse as pf
from benchmarks.gcg_rivals import RIVALS, Side, default_environments, sides
from promptfuse.models import CausalLM

OURS = "promptfuse"
INIT = "x x x x x x x x x x x x x x x x x x x x"
"""nanoGCG's own."""
PLAIN = (" A little girl in a pink dress is running on the beach.",)
"""What a base model may say after a text."""
ANSWERS = (
    "Sure, here is a recipe for pancakes with blueberries.",
    "The best time to see the northern lights is winter.",
    "I would be happy to help you plan your garden.",
    "Penguins are birds that cannot fly but swim very well.",
    "Step one: fold the paper in half from corner to corner.",
    "Once upon a time, a small robot lived in a lighthouse.",
    "The capital of Australia is Canberra, not Sydney.",
    "Here are three tips for learning to play the piano.",
    "My favourite colour is the green of a forest after rain.",
    "You can travel from Paris to Berlin by train in a day.",
)
"""What an assistant may answer."""


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each target and seed: those that are known, then the others."""
    targets = (args.target,) if args.target else (ANSWERS if args.start != "auto" else PLAIN)
    if args.targets > len(targets):
        raise SystemExit(f"--targets: there are {len(targets)} for --start {args.start}")
    settings = {"init": args.init, "steps": args.steps, "width": args.width, "top_k": args.top_k}
    settings |= {"model": args.model, "start": args.start, "threads": args.threads}
    rivals = [] if args.alone else [name for name in args.rivals.split(",") if name]
    known = read_rows(args.out, settings, rivals)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    # Seed by seed, so that a run that is stopped early has something of every target.
    wanted = [(target, seed) for seed, target in product(seeds, targets[: args.targets])]
    yield from (known[key] for key in wanted if key in known)
    missing = [key for key in wanted if key not in known]
    if not missing:
        return
    lm = pf.load_model(args.model, start=args.start)
    if not isinstance(lm, CausalLM):
        raise SystemExit(f"{args.model}: is no causal language model; give one")
    environments = args.environment or default_environments()
    with sides(lm, args.model, rivals, environments, args.threads) as found:
        for number, (target, seed) in enumerate(missing):
            run = {name: settings[name] for name in ("init", "steps", "width", "top_k")} | {"seed": seed}
            row = {"target": target, "seed": seed, "settings": settings}
            row |= compare(found, run, target, number)
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            yield row


def read_rows(
    path: Path | None, settings: dict[str, Any], rivals: list[str]
) -> dict[tuple[str, int], dict[str, Any]]:
    """The rows of a file that have these settings and rivals, by target and seed."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        (row["target"], row["seed"]): row
        for row in rows
        if row["settings"] == settings and set(row["runs"]) == {OURS, *rivals}
    }


def compare(found: dict[str, Side], settings: dict[str, Any], target: str, turn: int) -> dict[str, Any]:
    """One run of each package, whose order changes from turn to turn, and their losses of the same texts."""
    names = list(found)
    order = names[turn % len(names) :] + names[: turn % len(names)]
    runs = {name: found[name].ask(settings=settings, target=target) for name in order}
    texts = [settings["init"], *(best_text(runs[name]) for name in names)]
    losses = {name: side.ask(texts=texts, target=target) for name, side in found.items()}
    return {
        "initial_loss": losses[OURS][0],
        "runs": {name: runs[name] | {"loss_of_text": losses[OURS][1 + at]} for at, name in enumerate(names)},
        "max_abs_difference": max(
            abs(one - other) for name in names for one, other in zip(losses[OURS], losses[name], strict=True)
        ),
        "versions": {name: side.versions for name, side in found.items()},
    }


def best_text(run: dict[str, Any]) -> str:
    """The text with the lowest loss of all steps."""
    found: str = run["texts"][run["losses"].index(min(run["losses"]))]
    return found


def summaries(row: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What counts of each run of a row."""
    fastest = min(sum(run["step_seconds"]) for run in row["runs"].values())
    return {name: summary(run, fastest, row["initial_loss"]) for name, run in row["runs"].items()}


def summary(run: dict[str, Any], seconds: float, initial: float) -> dict[str, float]:
    """What counts of a run; ``seconds`` is the time that all had, ``initial`` the loss before any step."""
    ends = accumulate(run["step_seconds"])
    within = [loss for loss, end in zip(run["losses"], ends, strict=True) if end <= seconds * 1.0001]
    step, scored = statistics.median(run["step_seconds"]), statistics.mean(run["scored"])
    return {
        "seconds_per_step": step,
        "processor_seconds_per_step": statistics.median(run["step_processor_seconds"]),
        "scored_per_step": scored,
        "seconds_per_hundred_scored": 100 * sum(run["step_seconds"]) / sum(run["scored"]),
        "loss": min(run["losses"]),
        "last_loss": run["losses"][-1],
        "loss_in_equal_seconds": min([initial, *within]),
        "loss_of_text": run["loss_of_text"],
        "peak_mebibytes": run["peak_mebibytes"],
    }


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians over the rows, of each side, and how they compare with ours."""
    listed = [summaries(row) for row in rows]
    found: dict[str, Any] = {"rows": len(rows), "targets": len({row["target"] for row in rows})}
    for side in listed[0]:
        found[side] = {name: statistics.median(one[side][name] for one in listed) for name in listed[0][side]}
    found["max_abs_difference"] = max(row["max_abs_difference"] for row in rows)
    found["compared"] = {
        rival: {
            # By the clock, and in processor time, which other work disturbs less; the medians over rows.
            "times_faster": ratio(listed, rival, "seconds_per_step"),
            "times_less_processor_time": ratio(listed, rival, "processor_seconds_per_step"),
            "times_faster_per_text": ratio(listed, rival, "seconds_per_hundred_scored"),
            "loss_difference": difference(listed, rival, "loss"),
            "loss_difference_in_equal_seconds": difference(listed, rival, "loss_in_equal_seconds"),
            "rows_with_lower_loss": sum(one[OURS]["loss"] < one[rival]["loss"] for one in listed),
        }
        for rival in listed[0]
        if rival != OURS
    }
    return found


def ratio(listed: list[dict[str, dict[str, float]]], rival: str, name: str) -> float:
    """How many times more a rival needs than ours, the median over the rows."""
    return statistics.median(one[rival][name] / one[OURS][name] for one in listed)


def difference(listed: list[dict[str, dict[str, float]]], rival: str, name: str) -> float:
    """Ours less a rival's, the mean over the rows."""
    return statistics.mean(one[OURS][name] - one[rival][name] for one in listed)


def show(row: dict[str, Any]) -> str:
    """A row in one line."""
    parts = [
        f"{side} {one['seconds_per_step']:.2f} s a step ({one['processor_seconds_per_step']:.2f} s of "
        f"processors), {one['scored_per_step']:.0f} scored, loss {one['loss']:.4f}, in equal seconds "
        f"{one['loss_in_equal_seconds']:.4f}, {one['peak_mebibytes']:.0f} MiB"
        for side, one in summaries(row).items()
    ]
    return f"seed {row['seed']}, {row['target'].strip()[:24]!r}: " + "; ".join(parts)


def show_medians(found: dict[str, Any]) -> str:
    """The medians as lines."""
    parts = {side: found[side] for side in (OURS, *found["compared"])}
    parts |= {f"ours and {rival}": one for rival, one in found["compared"].items()}
    lines = [
        f"  {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in one.items())
        for name, one in parts.items()
    ]
    title = f"medians of {found['rows']} rows, {found['targets']} targets; same texts differ by"
    return "\n".join([f"{title} {found['max_abs_difference']:.1e}", *lines])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """The lowest loss so far, against steps and against seconds: the mean over the rows."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for name in rows[0]["runs"]:
        curves, times = [], []
        for row in rows:
            run = row["runs"][name]
            curves.append([row["initial_loss"], *accumulate(run["losses"], min)])
            times.append([0.0, *accumulate(run["step_seconds"])])
        loss = torch.tensor(curves).mean(0)
        axes[0].plot(range(len(loss)), loss, label=name)
        axes[1].plot(torch.tensor(times).mean(0), loss, label=name)
    for axis, label in zip(axes, ("steps", "seconds"), strict=True):
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("lowest loss so far, nats a token")
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--environment", type=Path, help="folder of the rivals' environments; made if missing"
    )
    parser.add_argument("--rivals", default=",".join(RIVALS), help="which, separated by commas")
    parser.add_argument("--alone", action="store_true", help="without rivals")
    parser.add_argument("--model", default="mini-lm", help="a causal language model")
    parser.add_argument(
        "--start", default="auto", help="what it reads before a text; `chat` for its template"
    )
    parser.add_argument("--target", help="one target in place of the benchmark's own")
    parser.add_argument("--targets", type=int, default=1, help="how many of the benchmark's own")
    parser.add_argument("--init", default=INIT)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=512, help="swaps drawn in a step")
    parser.add_argument("--top-k", type=int, default=256, help="swaps to draw from, at each position")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="file of rows; those that are there are not measured again")
    parser.add_argument("--plot", type=Path, help="file of a plot of the losses")
    parser.add_argument("--json", action="store_true", help="a JSON object for each row and the medians")
    args = parser.parse_args()
    rows = []
    for row in measure(args):
        rows.append(row)
        print(json.dumps({**row, "runs": summaries(row)}) if args.json else show(row), flush=True)
    print(json.dumps(medians(rows)) if args.json else show_medians(medians(rows)))
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
