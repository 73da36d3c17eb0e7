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
from benchmarks.single_model_gcg import save_checkpoint

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ.get("PROMPTFUSE_NANOGCG_ENVIRONMENT")
SMALL = ("--threads", "1", "--json", "--seeds", "2", "--width", "6", "--top-k", "4", "--init", "x x x x")


def bench(*arguments):
    command = [sys.executable, "-m", "benchmarks.single_model_gcg", *SMALL, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *rows, middle = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["seed"] for row in rows] == [0, 1]
    return rows, middle


def check(rows, middle, side):
    for row in rows:
        run = row[side]
        assert run["loss"] == pytest.approx(run["loss_of_text"], abs=1e-4)
        assert run["loss"] <= run["last_loss"]
        assert run["seconds_per_step"] > 0
    assert middle[side]["loss"] == statistics.median(row[side]["loss"] for row in rows)


@pytest.mark.slow
def test_losses_are_those_of_the_texts():
    rows, middle = bench("--alone", "--steps", "3")
    check(rows, middle, "ours")
    for row in rows:
        # The text to begin with is scored once, in the first step.
        assert row["ours"]["scored_per_step"] == pytest.approx((3 * 6 + 1) / 3)
        assert row["ours"]["loss"] < row["initial_loss"]
    assert rows[0]["ours"]["text"] != rows[1]["ours"]["text"]


@pytest.mark.skipif(
    not ENVIRONMENT, reason="set PROMPTFUSE_NANOGCG_ENVIRONMENT to the folder of nanoGCG's environment"
)
def test_both_give_a_text_the_same_loss():
    rows, middle = bench("--environment", ENVIRONMENT, "--steps", "2")
    check(rows, middle, "ours")
    check(rows, middle, "nanogcg")
    assert middle["max_abs_difference"] < 1e-4
    for row in rows:
        assert row["nanogcg"]["scored_per_step"] <= 6
        assert row["times_faster"] == pytest.approx(
            row["nanogcg"]["seconds_per_step"] / row["ours"]["seconds_per_step"]
        )


def test_the_checkpoint_begins_texts_as_ours_and_has_a_bare_template(tmp_path):
    lm = pf.load_model("mini-lm")
    save_checkpoint("mini-lm", tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "a dog runs"
    assert tokenizer([text])["input_ids"] == lm.token_rows([text])[0]
    message = [{"role": "user", "content": text}]
    assert tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True) == text
    again = pf.load_model(tmp_path)
    assert pf.Fluency(again).exact(text) == pytest.approx(pf.Fluency(lm).exact(text), abs=1e-6)
