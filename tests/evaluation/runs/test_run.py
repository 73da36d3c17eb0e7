"""Runs over a data set: complete, the same however they are cut, and never mixed with another's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import yaml
from PIL import Image

import promptfuse as pf
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.evaluation.runs import load_run_config, read_manifest, run_dataset
from promptfuse.models import EMBEDDED, PRESETS
from promptfuse.report.runs.folders import load_runs
from promptfuse.report.runs.judges import Judges, warnings
from tests.evaluation.runs.conftest import PHOTOS, QUICK, contents, write_config, write_photos


def cut(folder, target, *, lines, torn=b""):
    """A copy of a run folder as a kill would leave it: with its first lines only."""
    target.mkdir()
    whole = (folder / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (target / "predictions.jsonl").write_bytes(b"".join(whole[:lines]) + torn)
    (target / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    return target


@pytest.mark.slow
def test_a_run_has_a_line_for_each_photo(undisturbed, config, place):
    found = contents(undisturbed)
    assert sorted(found) == [f"{number:02d}.jpg" for number in range(8)]
    assert [photo for photo, line in found.items() if line["error"]] == ["01.jpg", "06.jpg"]
    assert "damaged or cut short" in found["01.jpg"]["error"]
    describer = load_recipe(QUICK).build()
    for number in (0, 4):
        line = found[f"{number:02d}.jpg"]
        alone = describer(place / "photos" / f"{number:02d}.jpg", seed=number)
        assert line["text"] == alone.text
        assert line["seed"] == number
        assert line["value"] == pytest.approx(alone.value, abs=1e-5)


@pytest.mark.slow
def test_strips_and_the_like_are_errors_of_theirs_alone(tmp_path):
    photos = write_photos(tmp_path / "photos", 5)
    Image.new("L", (1_000_000, 8)).save(photos / "01.png")
    Image.new("L", (8, 1_000_000)).save(photos / "02.png")
    Image.new("L", (1, 1)).save(photos / "03.png")
    run_dataset(load_run_config(write_config(tmp_path / "run.yaml")), tmp_path / "run")
    found = contents(tmp_path / "run")
    errors = {name: line["error"] for name, line in found.items() if line["error"]}
    assert sorted(errors) == ["01.png", "02.png", "03.png"]
    assert "1000000x8 pixels" in errors["01.png"]
    assert "8x1000000 pixels" in errors["02.png"]
    assert "too small" in errors["03.png"]
    assert len(found) == 8
    assert all(found[f"{number:02d}.jpg"]["text"] for number in range(5))


def test_the_manifest_says_what_was_done(undisturbed, place):
    values = json.loads((undisturbed / "manifest.json").read_text())
    assert values["recipe"].items() >= QUICK.items()
    assert values["versions"]["promptfuse"] == pf.__version__
    assert values["models"]["lm"]["name"] == "mini-lm"
    assert len(values["models"]["image_text"]["fingerprint"]) == 16
    assert (values["photos"], values["done"], values["failed"]) == (8, 8, 2)
    assert (values["in_flight"], values["threads"], values["device"]) == (3, 1, "cpu")
    assert values["data"]["source"] == str(place / "photos")
    assert values["peak_memory_bytes"] > 10**8
    assert 0 < values["work_seconds"] <= values["seconds"]
    assert values["started"] <= values["updated"]


@pytest.mark.slow
@pytest.mark.parametrize(("lines", "torn"), [(0, b""), (2, b'{"id": "05.jpg", "ima'), (5, b""), (7, b"{")])
def test_a_run_that_was_cut_goes_on_to_the_same_lines(undisturbed, config, tmp_path, lines, torn):
    folder = cut(undisturbed, tmp_path / "run", lines=lines, torn=torn)
    before = (folder / "predictions.jsonl").read_bytes()
    seen = []
    end = run_dataset(config, folder, seen.append)
    assert contents(folder) == contents(undisturbed)
    assert (end.photos, end.done, end.failed, end.fresh) == (8, 8, 2, 8 - lines)
    assert [one.done for one in seen] == list(range(lines, 9))
    assert (folder / "predictions.jsonl").read_bytes().startswith(before.removesuffix(torn))
    manifest = read_manifest(folder)
    assert [session.photos for session in manifest.sessions] == [8, 8 - lines]


def test_a_run_under_a_preset_that_has_changed_since_is_refused(undisturbed, config, tmp_path):
    folder = cut(undisturbed, tmp_path / "run", lines=2)
    values = json.loads((folder / "manifest.json").read_text())
    values["preset"]["candidates"] += 1
    (folder / "manifest.json").write_text(json.dumps(values))
    now = PRESETS["mini"].candidates
    with pytest.raises(pf.ConfigError, match=rf"contains a run with preset\.candidates {now + 1}, not {now}"):
        run_dataset(config, folder)


def test_a_run_that_is_complete_is_left_as_it_is(undisturbed, config, monkeypatch):
    names = ("predictions.jsonl", "manifest.json")
    before = [(undisturbed / name).read_bytes() for name in names]
    monkeypatch.setattr(pf.Captioner, "load", None)  # No model is loaded for nothing.
    end = run_dataset(config, undisturbed)
    assert (end.done, end.fresh, end.per_minute) == (8, 0, 0.0)
    assert [(undisturbed / name).read_bytes() for name in names] == before
    assert len(read_manifest(undisturbed).sessions) == 1


@pytest.mark.slow
@pytest.mark.parametrize("in_flight", [1, 8])
def test_any_number_in_flight_gives_the_same_texts(undisturbed, place, tmp_path, in_flight):
    run_dataset(load_run_config(place / "run.yaml", {"in_flight": in_flight}), tmp_path / "run")
    mine, other = contents(tmp_path / "run"), contents(undisturbed)
    assert {key: line["text"] for key, line in mine.items()} == {
        key: line["text"] for key, line in other.items()
    }
    for key, line in mine.items():
        assert line["value"] == pytest.approx(other[key]["value"], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"recipe.steps": 6}, "recipe.steps 5, not 6"),
        ({"recipe.image_weight": 9.0}, "recipe.image_weight None, not 9.0"),
        ({"sentiment": "positive"}, "recipe.sentiment None, not 'positive'"),
        ({"in_flight": 4}, "in_flight 3, not 4"),
        ({"threads": 2}, "threads 1, not 2"),
        ({"seed": 3}, "seed 0, not 3"),
        ({"limit": 5}, "data.photos 8, not 5"),
        ({"start": 1}, "data.start 0, not 1"),
        ({"recipe.models": "other.yaml"}, "recipe.models 'mini', not '.*other.yaml'"),
    ],
)
def test_a_folder_is_not_gone_on_with_under_other_settings(undisturbed, place, changes, named):
    before = (undisturbed / "predictions.jsonl").read_bytes(), (undisturbed / "manifest.json").read_bytes()
    (place / "other.yaml").write_text("base: mini\nimage_weight: 5.5\n")
    other = load_run_config(place / "run.yaml", changes)
    with pytest.raises(pf.ConfigError, match=f"contains a run with {named}; give another folder"):
        run_dataset(other, undisturbed)
    assert before == (
        (undisturbed / "predictions.jsonl").read_bytes(),
        (undisturbed / "manifest.json").read_bytes(),
    )


def test_other_data_and_other_models_are_found_out(undisturbed, place, config, tmp_path):
    folder = cut(undisturbed, tmp_path / "run", lines=3)
    write_photos(tmp_path / "photos", 8)
    with pytest.raises(pf.ConfigError, match=r"contains a run with data\.(source|photos_sha256) "):
        run_dataset(load_run_config(write_config(tmp_path / "run.yaml")), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["models"]["lm"]["identity"] = "0" * 16
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(pf.ConfigError, match=r"models\.lm\.identity '0000000000000000', not '"):
        run_dataset(config, folder)
    del manifest["models"]["lm"]["identity"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(pf.ConfigError, match="an earlier version, which did not record all weights"):
        run_dataset(config, folder)
    assert len(contents(folder)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "part"), [("lm", "mlp"), ("image_text", "vision"), ("sentiment", "classifier")]
)
def test_models_with_the_same_embeddings_are_found_out(tmp_path, role, part):
    models = {"lm": "mini-lm", "image_text": "mini-clip", "sentiment": "mini-tone"}
    folder = tmp_path / "models" / role
    shutil.copytree(EMBEDDED[models[role]], folder)
    preset = "".join(f"{key}: {folder if key == role else name}\n" for key, name in models.items())
    (tmp_path / "preset.yaml").write_text(f"base: mini\n{preset}")
    write_photos(tmp_path / "photos", 4)
    recipe = {**QUICK, "steps": 2, "models": "preset.yaml", "sentiment": "positive"}
    config = load_run_config(write_config(tmp_path / "run.yaml", recipe=recipe))
    run_dataset(config, tmp_path / "whole")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    named = [name for name in sorted(weights) if part in name]
    weights[named[-1]].mul_(1.25)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    before = cut(tmp_path / "whole", tmp_path / "run", lines=2)
    with pytest.raises(pf.ConfigError, match=rf"models\.{role}\.identity '"):
        run_dataset(config, before)
    assert len(contents(before)) == 2
    # The other run is another system, and a report of both says so, though all names are alike.
    run_dataset(config, tmp_path / "other")
    told = warnings(load_runs([tmp_path / "whole", tmp_path / "other"]), Judges())
    assert [line.partition(" (")[0] for line in told] == [f"The runs have different models as {role}"]


@pytest.mark.slow
def test_what_a_run_folder_holds_of_others_is_left_alone(undisturbed, config, tmp_path):
    folder = cut(undisturbed, tmp_path / "run", lines=2)
    (folder / "predictions.part").write_text("mine")
    (folder / "run.lock").write_text("front door: 1234")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(pf.ConfigError, match=r"its run\.lock does not belong to a run"):
        run_dataset(config, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "run.lock").unlink()
    whole = run_dataset(config, folder, retry_failed=True)
    assert (whole.done, (folder / "predictions.part").read_text()) == (8, "mine")


@pytest.mark.slow
def test_lines_keep_what_somebody_has_added_to_them(undisturbed, config, tmp_path):
    folder = cut(undisturbed, tmp_path / "run", lines=8)
    lines = [json.loads(line) | {"liked": number} for number, line in enumerate(
        (folder / "predictions.jsonl").read_text().splitlines())]  # fmt: skip
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run_dataset(config, folder, retry_failed=True)
    after = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["liked"] for line in after if line["text"]] == [
        line["liked"] for line in lines if line["text"]
    ]


@pytest.mark.slow
def test_the_device_the_engine_and_the_name_may_change(undisturbed, place, tmp_path):
    folder = cut(undisturbed, tmp_path / "run", lines=7)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sessions"][0]["device"] = "cuda"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    changes = {"name": "another", "engine.cpus_per_worker": 0.5}
    run_dataset(load_run_config(place / "run.yaml", changes), folder)
    assert contents(folder) == contents(undisturbed)


def test_folders_that_are_no_runs_of_ours(config, tmp_path, undisturbed):
    (tmp_path / "file").write_text("")
    with pytest.raises(pf.ConfigError, match="is a file; give a folder"):
        run_dataset(config, tmp_path / "file")
    folder = cut(undisturbed, tmp_path / "run", lines=2)
    (folder / "manifest.json").unlink()
    with pytest.raises(pf.ConfigError, match=r"has predictions but no manifest\.json"):
        run_dataset(config, folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(pf.ConfigError, match=r"manifest\.json: damaged"):
        run_dataset(config, folder)


def test_what_is_wrong_leaves_no_folder_behind(place, tmp_path):
    (place / "no-model.yaml").write_text("base: mini\nlm: ./no-such-model\n")
    for changes, problem in (
        ({"recipe.models": "no-model.yaml"}, "no-such-model"),
        ({"data": "nowhere"}, "nowhere"),
        ({"start": 8}, "past the last of its 8 photos"),
    ):
        with pytest.raises(pf.PromptfuseError, match=problem):
            run_dataset(load_run_config(place / "run.yaml", changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_failed_photos_can_be_tried_again(tmp_path):
    write_photos(tmp_path / "photos", 4, broken=(2,))
    config = load_run_config(write_config(tmp_path / "run.yaml"))
    assert run_dataset(config, tmp_path / "run").failed == 1
    good = (tmp_path / "photos" / "01.jpg").read_bytes()
    (tmp_path / "photos" / "02.jpg").write_bytes(good)
    assert run_dataset(config, tmp_path / "run").failed == 1
    end = run_dataset(config, tmp_path / "run", retry_failed=True)
    assert (end.failed, end.fresh) == (0, 1)
    assert contents(tmp_path / "run")["02.jpg"]["text"]


@pytest.mark.slow
def test_failed_photos_keep_their_reasons_until_they_can_be_tried(tmp_path, monkeypatch):
    write_photos(tmp_path / "photos", 4, broken=(2,))
    config = load_run_config(write_config(tmp_path / "run.yaml"))
    run_dataset(config, tmp_path / "run")
    before = contents(tmp_path / "run")

    def fail(engine):
        raise pf.ModelError("no memory for it")

    monkeypatch.setattr("promptfuse.evaluation.runs.engines.LocalEngine.load", fail)
    with pytest.raises(pf.ModelError, match="no memory"):
        run_dataset(config, tmp_path / "run", retry_failed=True)
    assert contents(tmp_path / "run") == before


def test_a_base_beside_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "here" / "recipes").mkdir(parents=True)
    (tmp_path / "here" / "recipes" / "mine.yaml").write_text("kind: search\nbeams: 2\nsteps: 3\n")
    write_config(tmp_path / "here" / "run.yaml", recipe={"base": "recipes/mine.yaml", "steps": 4})
    monkeypatch.chdir(tmp_path)
    recipe = load_run_config("here/run.yaml").make_recipe()
    assert (recipe.beams, recipe.steps) == (2, 4)


@pytest.mark.parametrize("field", ["data", "images", "recipe"])
def test_a_home_that_nobody_has(tmp_path, field):
    values = {field: "~nobodyx/mine.yaml"}
    write_photos(tmp_path / "photos", 1)
    with pytest.raises(pf.ConfigError, match="~nobodyx"):
        load_run_config(write_config(tmp_path / "run.yaml", **values)).read()


@pytest.mark.slow
def test_killed_at_random_moments_the_same_lines(slow, slow_undisturbed, tmp_path):
    script = [sys.executable, "tests/evaluation/runs/killing.py", slow, tmp_path, "3", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # The last kill may come too late on a machine that is quick.
    assert 1 <= found["kills"] <= 3
    assert found["lines"] == 6
    assert contents(tmp_path / "killed") == contents(slow_undisturbed)
    assert len(read_manifest(tmp_path / "killed").sessions) >= 2


def test_configurations_are_read_back(config, tmp_path):
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_run_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"dta": "x"}, "no field 'dta'; did you mean 'data'"),
        ({"recipe": "our"}, "no recipe 'our'; did you mean 'ours'"),
        ({"recipe": {"kind": "search", "stepz": 3}}, "no field 'stepz'; did you mean 'steps'"),
        ({"seed": 10**20}, "seed: .*less than or equal"),
        ({"threads": 10**11}, "threads: .*less than or equal"),
        (
            {"recipe": {"kind": "search", "steer": ["mini-tone:positive=0"]}},
            "positive=0'.*must be finite and not zero",
        ),
        ({"recipe": {"kind": "search", "steer": ["mini-tone:positive=nan"]}}, "must be finite and not zero"),
        (
            {"recipe": {"kind": "search", "steer": ["mini-tone:positive=1e7"]}},
            "is so large that no other term counts",
        ),
        ({"in_flight": 0}, "in_flight: .*greater than or equal to 1, found 0"),
        ({"engine": "rey"}, "engine.kind: 'rey' is unknown; did you mean 'ray'"),
        ({"engine": {"workers": 0}}, "engine.workers"),
        ({"format": "csv"}, "format: 'csv' is unknown; choose from: auto, karpathy"),
        ({"sentiment": "angry"}, "sentiment: 'angry' is unknown"),
    ],
)
def test_wrong_configurations(tmp_path, values, problem):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"data": "photos", **values}))
    with pytest.raises(pf.ConfigError, match=problem):
        load_run_config(tmp_path / "run.yaml")


def test_paths_are_relative_to_the_file_and_names_are_names(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my.yaml").write_text("kind: search\nsteps: 7\n")
    (tmp_path / "run.yaml").write_text("data: photos\nimages: s3://bucket/photos\nrecipe: sub/my.yaml\n")
    monkeypatch.chdir(tmp_path / "sub")
    config = load_run_config("../run.yaml", {"recipe.beams": 3})
    assert config.data == str(tmp_path / "photos")
    assert config.images == "s3://bucket/photos"
    assert (config.name, config.recipe["steps"], config.recipe["beams"]) == ("my", 7, 3)
    assert load_run_config("../run.yaml", {"data": "coco-karpathy"}).data == "coco-karpathy"
    assert load_run_config("../run.yaml", {"recipe": "paper"}).name == "paper"


def test_photos_lie_beside_a_link_to_the_data_set(tmp_path):
    """As the caches of hubs and of git-annex have files: under other names elsewhere."""
    store, here = tmp_path / "store" / "blobs", tmp_path / "here"
    store.mkdir(parents=True)
    write_photos(here / "images", 2)
    (store / "ab12").write_text('{"image": "00.jpg"}\n{"image": "01.jpg"}\n')
    (here / "captions.jsonl").symlink_to(store / "ab12")
    (here / "run.yaml").write_text("data: captions.jsonl\n")
    dataset = load_run_config(here / "run.yaml").read()
    assert [Path(photo.image).parent for photo in dataset.photos] == [here / "images"] * 2
    assert dataset.problems == ()


def test_a_configuration_behind_a_link_to_a_folder(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    write_photos(tmp_path / "real" / "photos", 1)
    write_config(tmp_path / "real" / "deep" / "run.yaml", data="../photos")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    assert load_run_config(tmp_path / "link" / "run.yaml").data == str(tmp_path / "real" / "photos")


def test_models_of_steers_are_relative_to_the_file(tmp_path, checkpoint):
    shutil.copytree(checkpoint("bert"), tmp_path / "tone")
    steers = ["./tone:positive=1", "tone:negative", "mini-tone:negative=-2", "sentiment:positive", "./no:x=1"]
    write_config(tmp_path / "run.yaml", recipe={"kind": "search", "steer": steers})
    own = tmp_path / "tone"
    found = load_run_config(tmp_path / "run.yaml").recipe["steer"]
    assert found == [f"{own}:positive=1", f"{own}:negative", *steers[2:]]


@pytest.mark.parametrize("kind", ["search", "samples", "gibbs"])
def test_a_prefix_that_no_photo_can_have_ends_the_run_at_once(tmp_path, kind):
    write_photos(tmp_path / "photos", 1)
    write_config(tmp_path / "run.yaml", recipe={"kind": kind, "prefix": "one\nline"})
    with pytest.raises(pf.ConfigError, match=r"prefix .*use one line"):
        run_dataset(load_run_config(tmp_path / "run.yaml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_photo_without_a_readable_sample_ends_nothing(tmp_path):
    """Of one sample a photo some cannot be read back; which ones depends on the seed alone."""
    write_photos(tmp_path / "photos", 6)
    recipe = {"kind": "samples", "count": 1, "steps": 12, "temperature": 3.0}
    write_config(tmp_path / "run.yaml", recipe=recipe, seed=16, in_flight=6)
    end = run_dataset(load_run_config(tmp_path / "run.yaml"), tmp_path / "run")
    reasons = [one["error"] for one in contents(tmp_path / "run").values() if one["error"]]
    assert end.done == 6
    assert len(reasons) == end.failed > 0
    assert all("can be read back; give a larger number" in reason for reason in reasons)


def test_a_wrong_device_of_workers_leaves_no_folder(place, tmp_path):
    changes = {"device": "cuda:77", "engine.workers": 2}
    with pytest.raises(pf.ConfigError, match=r"no device .cuda:77."):
        run_dataset(load_run_config(place / "run.yaml", changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_engine_alone_and_its_workers_in_one_command(place):
    config = load_run_config(place / "run.yaml", {"engine": "local", "engine.workers": 2})
    assert (config.engine.kind, config.engine.workers) == ("local", 2)


@pytest.mark.slow
def test_a_data_set_of_hugging_faces_package(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path / "cache"))
    rows = {"image": [str(photo) for photo in PHOTOS[:2]], "caption": ["A dog.", "A cat."]}
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    datasets.DatasetDict(test=table).save_to_disk(tmp_path / "pets")
    config = load_run_config(write_config(tmp_path / "run.yaml", data=f"hf:{tmp_path / 'pets'}:test"))
    end = run_dataset(config, tmp_path / "run")
    assert (end.done, end.failed) == (2, 0)
    found = contents(tmp_path / "run")
    assert {name.partition("/")[0] for name in found} == {"test"}
    assert all(Path(line["image"]).is_file() for line in found.values())
    assert run_dataset(config, tmp_path / "run").fresh == 0
