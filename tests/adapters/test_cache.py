"""The cache of fitted adapters."""

import dataclasses
import logging
import subprocess
import sys

import pytest
import torch

from promptfuse.adapters import Adapter, cache, fit
from promptfuse.errors import AdapterError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path))


@pytest.fixture
def models(make_model):
    return make_model("byte-level", 12), make_model("word-piece", 8, seed=1)


@pytest.fixture
def fits(monkeypatch):
    """The presets of the fits that are made."""
    made = []
    real = Adapter.fit

    def counted(model_a, model_b, preset="default", *rest, **options):
        made.append(preset)
        return real(model_a, model_b, preset, *rest, **options)

    monkeypatch.setattr(Adapter, "fit", counted)
    return made


def moved(model):
    """A model of the same name with another table."""
    return type(model)(model.name, model.tokenizer, model.embedding_table + 1e-3)


def same(one, other):
    return all(torch.equal(g, other.maps.of_length(n)) for n, g in one.maps.by_length.items())


def test_it_is_fitted_once_and_then_loaded(models, fits, tmp_path, caplog):
    first = Adapter.for_models(*models)
    second = Adapter.for_models(*models)
    assert fits == ["default"]
    assert same(first, second)
    assert second.report() == first.report()
    second.verify(*models)
    assert cache.adapter_folder(*models).parent == tmp_path / "adapters"
    assert caplog.text == ""


def test_progress_is_only_that_of_a_fit(models):
    seen = []
    Adapter.for_models(*models, progress=lambda done, total: seen.append(done))
    assert seen
    seen.clear()
    Adapter.for_models(*models, progress=lambda done, total: seen.append(done))
    assert not seen


def test_presets_and_directions_have_their_own(models, fits):
    for preset in ("default", "paper"):
        assert Adapter.for_models(*models, preset=preset).report().preset == preset
        assert Adapter.for_models(*models, preset=preset).report().preset == preset
    back = Adapter.for_models(models[1], models[0])
    assert back.fingerprints == (models[1].fingerprint, models[0].fingerprint)
    assert fits == ["default", "paper", "default"]


def test_another_table_of_the_same_name_is_fitted_anew_with_a_notice(models, fits, caplog):
    Adapter.for_models(*models)
    changed = (models[0], moved(models[1]))
    adapter = Adapter.for_models(*changed)
    adapter.verify(*changed)
    assert len(fits) == 2
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert models[1].name in record.getMessage()
    assert "\n" not in record.getMessage()
    caplog.clear()
    Adapter.for_models(*models)
    Adapter.for_models(*changed)
    assert len(fits) == 2
    assert caplog.text == ""


def test_a_changed_setting_is_fitted_anew(models, fits, monkeypatch, caplog):
    Adapter.for_models(*models, preset="paper")
    weighted = dataclasses.replace(fit.PRESETS["paper"], weight_power=1.0)
    monkeypatch.setitem(fit.PRESETS, "paper", weighted)
    Adapter.for_models(*models, preset="paper")
    assert fits == ["paper", "paper"]
    assert "another embedding table" in caplog.text


def test_a_stale_adapter_in_the_right_place_is_not_used(models, fits, caplog):
    """Copied by hand, say."""
    Adapter.for_models(models[0], moved(models[1])).save_pretrained(cache.adapter_folder(*models))
    adapter = Adapter.for_models(*models)
    adapter.verify(*models)
    assert len(fits) == 2
    assert "another embedding table or tokenizer" in caplog.text
    caplog.clear()
    Adapter.fit(*models, preset="paper").save_pretrained(cache.adapter_folder(*models))
    assert Adapter.for_models(*models).report().preset == "default"
    assert "preset paper" in caplog.text


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*.safetensors", "cut"),
        ("*.safetensors", "flipped"),
        ("*.safetensors", "gone"),
        ("adapter.json", "cut"),
        ("adapter.json", "flipped"),
    ],
)
def test_a_damaged_adapter_is_fitted_anew_with_a_notice(models, fits, caplog, pattern, damage):
    first = Adapter.for_models(*models)
    (file,) = cache.adapter_folder(*models).glob(pattern)
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        half = len(data) // 2
        file.write_bytes(
            data[:half] if damage == "cut" else data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        )
    again = Adapter.for_models(*models)
    assert len(fits) == 2
    assert same(first, again)
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    Adapter.for_models(*models)
    assert len(fits) == 2


def test_a_cache_that_cannot_be_written_to_costs_a_notice(models, tmp_path, caplog):
    (tmp_path / "adapters").touch()
    adapter = Adapter.for_models(*models)
    adapter.verify(*models)
    assert "cannot write" in caplog.text
    assert "used without being cached" in caplog.text


def test_an_unknown_preset_is_refused(models):
    with pytest.raises(AdapterError, match="choose from default, paper"):
        Adapter.for_models(*models, preset="papr")


def test_names_with_separators_stay_in_the_folder(models, tmp_path):
    odd = type(models[0])("../../some/where else\\x", models[0].tokenizer, models[0].embedding_table)
    long = type(models[1])("/" + "deep/" * 80, models[1].tokenizer, models[1].embedding_table)
    folder = cache.adapter_folder(odd, long)
    assert folder.resolve().parent == (tmp_path / "adapters").resolve()
    Adapter.for_models(odd, long)
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [folder.name]


def test_without_the_variable_it_is_the_users_cache(monkeypatch):
    monkeypatch.delenv("PROMPTFUSE_CACHE")
    assert cache.cache_folder().name == "adapters"
    assert "promptfuse" in str(cache.cache_folder())


@pytest.mark.slow
def test_processes_at_once_leave_a_whole_adapter(models, tmp_path):
    script = (
        "import sys, torch\n"
        "from types import SimpleNamespace\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "from promptfuse.adapters import Adapter\n"
        "torch.set_num_threads(1)\n"
        "def model(name, d):\n"
        "    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f'{sys.argv[1]}/{name}.json')\n"
        "    table = torch.randn(len(tokenizer), d, generator=torch.Generator().manual_seed(d))\n"
        "    of = dict(name=name, fingerprint=name, tokenizer=tokenizer, embedding_table=table)\n"
        "    return SimpleNamespace(**of)\n"
        "a, b = model('a', 12), model('b', 8)\n"
        "sys.stdin.readline()\n"
        "for _ in range(3):\n"
        "    Adapter.for_models(a, b).verify(a, b)\n"
    )
    for name, model in zip("ab", models, strict=True):
        model.tokenizer.backend_tokenizer.save(str(tmp_path / f"{name}.json"))
    command = [sys.executable, "-c", script, str(tmp_path)]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    outcomes = [(worker.communicate(timeout=120)[1], worker.returncode) for worker in workers]
    assert outcomes == [("", 0)] * 2
    (folder,) = (tmp_path / "adapters").iterdir()
    Adapter.from_pretrained(folder)


@pytest.mark.parametrize("text", ['{"hidden_size": 8}', "not JSON", '["maps-1.safetensors"]'])
def test_no_file_of_somebody_elses_is_replaced(models, tmp_path, text):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "adapter.json").write_text(text)
    (folder / "maps-1.safetensors").write_text("mine")
    adapter = Adapter.fit(*models)
    with pytest.raises(AdapterError, match="is not an adapter's and would be replaced; give another folder"):
        adapter.save_pretrained(folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "adapter.json": text, "maps-1.safetensors": "mine"
    }  # fmt: skip
    (folder / "adapter.json").unlink()
    for _ in range(2):
        adapter.save_pretrained(folder)
    assert (folder / "maps-1.safetensors").read_text() == "mine"


def test_files_that_git_lfs_has_not_fetched_are_told_as_such(tmp_path):
    for name in ("adapter.json", "maps.safetensors"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n")
        with pytest.raises(AdapterError, match=r"is a git-lfs pointer.*git lfs pull"):
            Adapter.from_pretrained(folder)
