from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from promptfuse.errors import ModelError
from promptfuse.models import CausalLM, load_model
from promptfuse.models import gguf as gguf_folder
from promptfuse.models.info import place_of, read_model_info
from promptfuse.objectives import Fluency
from tests.checkpoint_tokenizers import qwen2_tokenizer
from tests.checkpoints import excite
from tests.conftest import quiet
from tests.models.gguf_files import write_gguf

TEXTS = ("A dog runs on the grass.", "Zwei Häuser, 1984 <|im_end|>", "the")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[transformers.PreTrainedModel, object]:
    torch.manual_seed(0)
    tokenizer = qwen2_tokenizer()
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, rope_theta=10000.0,
        tie_word_embeddings=False,
    )  # fmt: skip
    return excite(transformers.Qwen2ForCausalLM(config)).eval(), tokenizer


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_an_unpacked_file_is_the_model_it_was_made_of(source, place: Path) -> None:
    file = write_gguf(place / "small.gguf", *source)
    ours, original = load_model(file), load_model(source[0], tokenizer=source[1])
    assert isinstance(ours, CausalLM)
    for text in TEXTS:
        assert ours.encode([text]).ids.tolist() == original.encode([text]).ids.tolist()
        assert Fluency(ours).exact(text) == pytest.approx(Fluency(original).exact(text), abs=1e-5)


def test_quantised_weights_give_what_transformers_gives(source, place: Path) -> None:
    file = write_gguf(place / "small-Q8_0.gguf", *source, quantised=True)
    with quiet():
        module = transformers.AutoModelForCausalLM.from_pretrained(
            place, gguf_file=file.name, dtype=torch.float32
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, gguf_file=file.name)
    ours, theirs = load_model(str(file)), load_model(module, tokenizer=tokenizer)
    original = Fluency(load_model(source[0], tokenizer=source[1]))
    for text in TEXTS:
        assert Fluency(ours).exact(text) == pytest.approx(Fluency(theirs).exact(text), abs=1e-5)
        assert Fluency(ours).exact(text) != original.exact(text)
    state = module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ours.module.state_dict().items())


def test_a_file_is_converted_once(source, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_gguf(place / "small.gguf", *source)
    calls = []
    read = gguf_folder._read
    monkeypatch.setattr(gguf_folder, "_read", lambda *args: (calls.append(args), read(*args))[1])
    first = load_model(file)
    (place / "elsewhere").mkdir()
    moved = shutil.copy(file, place / "elsewhere" / "small.gguf")
    assert load_model(Path(moved)).identity == first.identity == load_model(place / "elsewhere").identity
    assert len(calls) == 1
    with torch.no_grad():
        changed = transformers.Qwen2ForCausalLM(source[0].config)
        changed.load_state_dict(source[0].state_dict())
        changed.model.norm.weight.mul_(2)
    write_gguf(file, changed, source[1])
    assert load_model(file).identity != first.identity
    assert len(calls) == 2
    assert sorted(path.suffix for path in (place / "cache" / "gguf").iterdir()) == ["", "", ".lock", ".lock"]


def test_a_conversion_that_fails_leaves_nothing(source, place: Path) -> None:
    lacking = write_gguf(place / "lacking.gguf", *source, left_out="model.norm.weight")
    with pytest.raises(ModelError, match=r"lacking.gguf: the file lacks 1 parameters .*model.norm.weight"):
        load_model(lacking)
    broken = place / "broken.gguf"
    broken.write_bytes(lacking.read_bytes()[:400])
    with pytest.raises(ModelError, match=r"broken.gguf: transformers .* cannot read this GGUF file"):
        load_model(broken)
    assert [path.suffix for path in (place / "cache" / "gguf").iterdir()] == [".lock", ".lock"]


def test_what_cannot_be_read_is_named(source, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_gguf(place / "a.gguf", *source)
    for name, message in (("plain", "rename it"), ("a-00001-of-00002.gguf", "llama-gguf-split --merge")):
        with pytest.raises(ModelError, match=message):
            load_model(shutil.copy(file, place / name))
    (place / "several").mkdir()
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(file, place / "several" / name)
    with pytest.raises(ModelError, match=r"has 2 GGUF files; give one of them, such as .*a\.gguf"):
        load_model(place / "several")
    monkeypatch.setattr(gguf_folder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r"GGUF needs the package gguf and accelerate; pip install .promptfuse.gguf."
    ):
        load_model(file)


def test_a_disk_without_room_is_named(source, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(place)._replace(free=1000)
    monkeypatch.setattr(gguf_folder.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(ModelError, match=r"MB do not fit into .*gguf; set PROMPTFUSE_CACHE"):
        load_model(write_gguf(place / "a.gguf", *source))


def test_weights_beside_a_gguf_file_are_taken(checkpoint: Callable[[str], Path], source, place: Path) -> None:
    folder = Path(shutil.copytree(checkpoint("gpt2"), place / "both"))
    identity = load_model(folder).identity
    write_gguf(folder / "other.gguf", *source)
    assert load_model(folder).identity == identity


def test_it_is_known_before_it_is_loaded(source, place: Path) -> None:
    file = str(write_gguf(place / "a.gguf", *source))
    assert place_of(file) == ("file", file)
    assert read_model_info(file).to_dict() == {"name": file, "kind": "causal-lm", "where": "folder"}
