"""GCG beside nanoGCG: what both read must be the same, or the figures mean nothing."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

import promptfuse as pf
from benchmarks.gcg_rivals import save_checkpoint
from benchmarks.single_model_gcg import medians, read_rows, summaries

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = os.environ.get("PROMPTFUSE_GCG_ENVIRONMENTS")
SMALL = ("--threads", "1", "--json", "--seeds", "2", "--width", "6", "--top-k", "4", "--init", "x x x x")


def bench(*arguments):
    command = [sys.executable, "-m", "benchmarks.single_model_gcg", *SMALL, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *rows, middle = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["seed"] for row in rows] == [0, 1]
    return rows, middle


def check(rows, middle, side):
    for row in rows:
        run = row["runs"][side]
        assert run["loss"] == pytest.approx(run["loss_of_text"], abs=1e-4)
        assert run["loss"] <= run["last_loss"]
        assert run["seconds_per_step"] > 0
        assert run["peak_mebibytes"] > 100
    assert middle[side]["loss"] == statistics.median(row["runs"][side]["loss"] for row in rows)


@pytest.mark.slow
def test_losses_are_those_of_the_texts_and_rows_are_kept(tmp_path):
    out = tmp_path / "rows.jsonl"
    rows, middle = bench("--alone", "--steps", "3", "--out", out)
    check(rows, middle, "promptfuse")
    for row in rows:
        # The text to begin with is scored once, in the first step.
        assert row["runs"]["promptfuse"]["scored_per_step"] == pytest.approx((3 * 6 + 1) / 3)
        assert row["runs"]["promptfuse"]["loss"] < row["initial_loss"]
    assert bench("--alone", "--steps", "3", "--out", out) == (rows, middle)
    first, second = [json.loads(line) for line in out.read_text().splitlines()]
    assert first["runs"]["promptfuse"]["texts"] != second["runs"]["promptfuse"]["texts"]
    assert read_rows(out, first["settings"], []).keys() == {(row["target"], row["seed"]) for row in rows}
    assert not read_rows(out, first["settings"], ["tropt"])
    assert not read_rows(out, first["settings"] | {"steps": 4}, [])


@pytest.mark.skipif(
    not ENVIRONMENTS, reason="set PROMPTFUSE_GCG_ENVIRONMENTS to the folder of the rivals' environments"
)
@pytest.mark.parametrize("start", ["auto", "<s>[user] {} [bot]"])
def test_all_give_a_text_the_same_loss(start):
    rows, middle = bench("--environment", ENVIRONMENTS, "--steps", "2", "--start", start)
    assert middle["max_abs_difference"] < 1e-4
    for rival in ("nanogcg", "tropt"):
        if start == "auto":  # Rivals read what stands after a text by itself, so tokens may differ there.
            check(rows, middle, rival)
        for row in rows:
            assert row["runs"][rival]["scored_per_step"] <= 6
        assert middle["compared"][rival]["times_faster"] == pytest.approx(
            statistics.median(
                row["runs"][rival]["seconds_per_step"] / row["runs"]["promptfuse"]["seconds_per_step"]
                for row in rows
            )
        )


def run(losses, seconds):
    return {
        "losses": losses,
        "texts": [f"text {loss}" for loss in losses],
        "scored": [10] * len(losses),
        "step_seconds": [seconds] * len(losses),
        "step_processor_seconds": [seconds] * len(losses),
        "loss_of_text": min(losses),
        "peak_mebibytes": 1.0,
    }


def test_equal_seconds_are_those_of_the_fastest():
    row = {"target": "t", "seed": 0, "max_abs_difference": 0.0, "initial_loss": 6.0}
    row["runs"] = {"promptfuse": run([5.0, 3.0, 4.0], 1.0), "tropt": run([4.0, 3.5, 2.0], 2.0)}
    found = summaries(row)
    assert found["promptfuse"]["loss"] == found["promptfuse"]["loss_in_equal_seconds"] == 3.0
    assert (found["tropt"]["loss"], found["tropt"]["loss_in_equal_seconds"]) == (2.0, 4.0)
    compared = medians([row])["compared"]["tropt"]
    assert (compared["times_faster"], compared["loss_difference"]) == (2.0, 1.0)
    assert (compared["loss_difference_in_equal_seconds"], compared["rows_with_lower_loss"]) == (-1.0, 0)


@pytest.mark.parametrize("start", ["auto", "<s>[user] {} [bot]"])
def test_the_checkpoint_reads_texts_as_ours(tmp_path, start):
    lm = pf.load_model("mini-lm", start=start)
    save_checkpoint(lm, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "a dog runs"
    message = [{"role": "user", "content": text}]
    whole = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    ids = tokenizer([whole], add_special_tokens=False)["input_ids"][0]
    assert ids == lm.token_rows([text + lm.closing])[0][0]
    again = pf.load_model(tmp_path)
    assert pf.Fluency(again).exact(text) == pytest.approx(
        pf.Fluency(pf.load_model("mini-lm")).exact(text), abs=1e-6
    )
