"""On a GPU: the values are those of the CPU, and searches go on from one device to the other.

Skipped where there is no GPU. ``PROMPTFUSE_GPU_TESTS=cpu pytest -m gpu`` runs them on the CPU, as a trial.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import promptfuse as pf
from promptfuse.search import GCG, AutoDAN, BeamSearch, Greedy, Search
from promptfuse.tasks import caption_all

PHOTOS = sorted((Path(__file__).parents[1] / "examples" / "photos").glob("*.jpg"))[:3]
QUICK: dict[str, Any] = {"steps": 5, "beams": 2, "candidates": 6}
HALF = {"fluency": 0.05, "image": 0.02, "tone": 0.1}
"""What bfloat16, with its 8 bits, may change: nats a token, cosine, nats."""
SINGLE = dict.fromkeys(HALF, 1e-3)
WANTED = os.environ.get("PROMPTFUSE_GPU_TESTS") or ("cuda" if torch.cuda.is_available() else "")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not WANTED, reason="needs a GPU")]


def objective(device: str, dtype: torch.dtype = torch.float32) -> pf.Objective:
    lm, clip, tone = (
        pf.load_model(name, device=torch.device(device), dtype=dtype)
        for name in ("mini-lm", "mini-clip", "mini-tone")
    )
    return pf.Objective(
        pf.Fluency(lm),
        pf.ImageSimilarity(clip, PHOTOS[1], weight=3.5),
        pf.ClassProbability(tone, label="positive", weight=1.0, name="tone"),
    )


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, SINGLE), (torch.bfloat16, HALF)])
def test_values_of_a_search_are_exact_and_those_of_the_cpu(dtype, allowed) -> None:
    here, cpu = objective(WANTED, dtype), objective("cpu")
    search = Search(here, AutoDAN(candidates=8), BeamSearch(3), steps=6)
    search.run()
    found = {beam.text: beam.terms for step in search.history for beam in step.beams}
    assert len(found) > 10
    batch = here.score(list(found))
    for place, (text, fast) in enumerate(found.items()):
        exact, wanted = here.exact(text).terms, cpu.exact(text).terms
        for name, most in allowed.items():
            assert fast[name] == pytest.approx(exact[name], abs=most), (text, name)
            assert float(batch[name][place]) == pytest.approx(exact[name], abs=most), (text, name)
            assert exact[name] == pytest.approx(wanted[name], abs=most), (text, name)


def test_captions_are_those_of_the_cpu_alone_and_in_flight() -> None:
    here, cpu = pf.Captioner("mini", device=WANTED), pf.Captioner("mini")
    wanted = [cpu(photo, **QUICK) for photo in PHOTOS]
    alone = [here(photo, **QUICK) for photo in PHOTOS]
    together = caption_all(here, PHOTOS, in_flight=3, **QUICK)
    for one, other, third in zip(wanted, alone, together, strict=True):
        assert (other.text, third.text) == (one.text, one.text)
        assert other.value == pytest.approx(one.value, abs=1e-3)
        assert third.value == pytest.approx(one.value, abs=1e-3)


def test_gradients_rank_swaps_as_on_the_cpu() -> None:
    def run(device: str) -> pf.Result:
        lm = pf.load_model("mini-lm", device=torch.device(device))
        target = pf.Objective(pf.TargetContinuation(lm, " on the beach."))
        method = GCG(init="A dog is here now", top_k=32, batch=24)
        return Search(target, method, Greedy(), steps=3).run()

    here, cpu = run(WANTED), run("cpu")
    assert [step.best.text for step in here.history] == [step.best.text for step in cpu.history]
    assert here.value == pytest.approx(cpu.value, abs=1e-3)


def test_a_search_goes_on_on_another_device() -> None:
    def begin(device: str) -> Search:
        return Search(objective(device), AutoDAN(candidates=6), BeamSearch(2), steps=6)

    whole = begin(WANTED).run()
    first = begin("cpu")
    for _ in range(3):
        first.step()
    second = begin(WANTED)
    second.load_state_dict(first.state_dict())
    found = second.run()
    assert found.text == whole.text
    assert found.value == pytest.approx(whole.value, abs=1e-3)


def test_the_command_line_takes_the_device(promptfuse) -> None:
    arguments = ["caption", str(PHOTOS[0]), "--device", WANTED, "--steps", "3", "--json"]
    code, out, err = promptfuse(*arguments)
    assert (code, err) == (0, "")
    row = json.loads(out)
    _, plain, _ = promptfuse("caption", str(PHOTOS[0]), "--steps", "3", "--json")
    assert row["text"] == json.loads(plain)["text"]
    assert row["value"] == pytest.approx(json.loads(plain)["value"], abs=1e-3)
