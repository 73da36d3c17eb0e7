"""Small data sets of real photos, and quick recipes for the embedded models."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from promptfuse.evaluation.predictions import read_predictions
from promptfuse.evaluation.runs import load_run_config, run_dataset

PHOTOS = sorted((Path(__file__).parents[3] / "examples" / "photos").glob("*.jpg"))
QUICK = {"kind": "search", "steps": 5, "beams": 2, "candidates": 5}
SLOW = {"kind": "search", "steps": 14, "beams": 4, "candidates": 48}
SAMPLES = {"kind": "samples", "count": 6, "steps": 5}


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


def write_photos(folder, count, broken=()):
    """Copies of the example photos, some of them broken, as 00.jpg, 01.jpg, ..."""
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number:02d}.jpg"
        shutil.copy(PHOTOS[number % len(PHOTOS)], path)
        if number in broken:
            path.write_bytes(path.read_bytes()[:300])
    return folder


def write_config(path, **values):
    path.write_text(yaml.safe_dump({"data": "photos", "recipe": QUICK, "in_flight": 3, **values}))
    return path


def contents(folder):
    """What has to be the same whatever happens: all of each line but the time that it took."""
    found = {}
    for prediction in read_predictions(Path(folder) / "predictions.jsonl"):
        values = json.loads(prediction.to_line())
        assert values["id"] not in found
        assert values.pop("seconds") >= 0
        found[values["id"]] = values
    return found


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with a data set of 8 photos, 2 of them broken, and the configuration of a run over it."""
    place = tmp_path_factory.mktemp("place")
    write_photos(place / "photos", 8, broken=(1, 6))
    write_config(place / "run.yaml")
    return place


@pytest.fixture(scope="session")
def config(place):
    return load_run_config(place / "run.yaml")


@pytest.fixture(scope="session")
def undisturbed(config, place):
    """The run folder of a run that nothing happened to."""
    run_dataset(config, place / "undisturbed")
    return place / "undisturbed"


@pytest.fixture(scope="session")
def slow(place):
    """The configuration of a run that takes seconds, so that it can be stopped on its way."""
    return write_config(place / "slow.yaml", recipe=SLOW, in_flight=2, limit=6)


@pytest.fixture(scope="session")
def slow_undisturbed(slow, place):
    """The run folder of the slow run when nothing happens to it."""
    run_dataset(load_run_config(slow), place / "slow")
    return place / "slow"
