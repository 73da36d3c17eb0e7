"""Runs whose captions are drawn to classifiers' labels."""

import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.runs import check_run, load_run_config, read_manifest, run_dataset
from promptfuse.models.presets import PRESETS
from tests.evaluation.runs.conftest import QUICK, contents, write_config, write_photos

IMAGE_WEIGHT = PRESETS["mini"].image_weight
STEER = ["mini-tone:negative=4", "sentiment:positive=-1"]


@pytest.mark.slow
def test_a_run_is_steered(tmp_path):
    write_photos(tmp_path / "photos", 2)
    config = load_run_config(write_config(tmp_path / "run.yaml", recipe=QUICK | {"steer": STEER}))
    assert check_run(config).models["mini-tone"].labels == ("negative", "neutral", "positive")
    assert run_dataset(config, tmp_path / "run").done == 2
    for line in contents(tmp_path / "run").values():
        assert line["weights"] == {
            "fluency": 1,
            "image": IMAGE_WEIGHT,
            "steer:negative": 4,
            "steer:positive": -1,
        }
        assert line["terms"]["steer:negative"] < line["terms"]["steer:positive"]
    manifest = read_manifest(tmp_path / "run")
    assert manifest.recipe["steer"] == STEER
    assert set(manifest.models) == {"lm", "image_text", "sentiment"}


@pytest.mark.parametrize(
    ("steer", "message"),
    [
        ("mini-tone:grumpy=1", "mini-tone has no label 'grumpy'; choose from: negative, neutral, positive"),
        ("mini-lm:positive=1", "mini-lm has no label 'positive'; give a classifier"),
    ],
)
def test_a_wrong_label_is_found_before_the_run(tmp_path, steer, message):
    write_photos(tmp_path / "photos", 1)
    config = load_run_config(write_config(tmp_path / "run.yaml", recipe=QUICK | {"steer": [steer]}))
    with pytest.raises(ConfigError, match=message):
        check_run(config)
