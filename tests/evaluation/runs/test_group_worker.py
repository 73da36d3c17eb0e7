"""What travels between a run and its workers, whatever engine started them."""

import pytest

import promptfuse as pf
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.evaluation.runs import load_run_config
from promptfuse.evaluation.runs.group_worker import (
    GroupWorker,
    answer_from_json,
    answer_to_json,
    deliver_answer,
    group_from_json,
    group_to_json,
    models_of,
)
from promptfuse.evaluation.runs.groups import describe_group, make_groups
from tests.evaluation.runs.conftest import QUICK, write_config, write_photos


@pytest.fixture
def group(tmp_path):
    write_photos(tmp_path / "photos", 3, broken=(1,))
    config = load_run_config(write_config(tmp_path / "run.yaml"))
    return make_groups(config.read().photos, 3, seed=5)[0]


@pytest.mark.slow
def test_groups_and_lines_survive_the_way_to_a_worker_and_back(group):
    given = group_from_json(group_to_json(group))
    assert given == group
    assert (given.number, given.seeds) == (group.number, group.seeds)
    assert [(photo.id, photo.image) for photo in given.photos] == [
        (photo.id, photo.image) for photo in group.photos
    ]
    describer = load_recipe(QUICK).build()
    describer.load()
    expected, found, costs = [], [], []
    describe_group(describer, group, expected.append)
    worker = GroupWorker(QUICK, "cpu", 1, describer.models())
    answer = answer_from_json(answer_to_json(worker(given)))
    deliver_answer(answer, found.append, costs.append)
    assert {(line.id, line.text, line.value, line.error, line.seed) for line in found} == {
        (line.id, line.text, line.value, line.error, line.seed) for line in expected
    }
    assert costs[0].seconds > 0


def test_a_worker_whose_model_differs_beyond_its_embeddings_is_found_out(group):
    models = models_of(load_recipe(QUICK))
    models["image_text"]["identity"] = "0" * 16
    with pytest.raises(pf.ModelError, match="mini-clip: the worker has other files than the process that"):
        GroupWorker(QUICK, "cpu", 1, models)(group)


def test_a_worker_with_other_models_is_found_out(group):
    models = {**models_of(load_recipe(QUICK)), "lm": {"name": "mini-lm", "fingerprint": "0"}}
    worker = GroupWorker(QUICK, "cpu", 1, models)
    with pytest.raises(pf.ModelError, match="mini-lm: the worker has other files than the process that"):
        worker(group)


def test_an_error_keeps_its_kind_and_message_on_the_way():
    with pytest.raises(pf.ModelError, match=r"^the worker has no such model$"):
        answer_from_json(answer_to_json(pf.ModelError("the worker has no such model")))
