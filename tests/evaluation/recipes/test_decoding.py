"""Reading token by token: what whole rows give, in any architecture; and which texts may be captions."""

import pytest
import torch
import yaml

from promptfuse.errors import TextError
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.evaluation.recipes.decoding import Language, read
from promptfuse.search.scheduler import BatchScheduler
from tests.evaluation.recipes.conftest import quick

TEXTS = ("A brown dog runs", "Two children are playing", "The little girl is")


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "qwen2", "mistral", "gpt-neox"])
def test_readings_are_those_of_whole_rows(model, name):
    lm = model(name)
    rows = [[*lm.start_ids, *ids][:6] for ids in lm.plain_ids(TEXTS)]
    assert {len(row) for row in rows} == {6}
    ids = torch.tensor(rows)
    with torch.no_grad():
        whole = lm.module(input_ids=ids, output_hidden_states=True)
    reading = read(lm, ids[:, :3])
    hidden = [reading.hidden]
    for column in range(3, 6):
        reading = read(lm, ids[:, column : column + 1], reading.layers)
        hidden.append(reading.hidden)
    expected = whole.logits[:, -1].log_softmax(-1)
    assert torch.allclose(reading.log_probabilities, expected, atol=1e-4)
    assert torch.allclose(torch.cat(hidden, 1), whole.hidden_states[-1], atol=1e-4)
    picked = reading.of(torch.tensor([2, 0, 2]))
    more = read(lm, ids[:, :1][[2, 0, 2]], picked.layers)
    again = read(lm, ids[:, :1], reading.layers)
    assert torch.allclose(more.log_probabilities, again.log_probabilities[[2, 0, 2]], atol=1e-4)


def test_photos_that_are_as_far_are_read_together():
    lm = quick("ours").captioner.model("lm")
    rows = [torch.tensor([[*lm.start_ids, *ids[:3]]]) for ids in lm.plain_ids(TEXTS)]
    found = {}

    def worker(number):
        first = read(lm, rows[number][:, :2])
        found[number] = read(lm, rows[number][:, 2:], first.layers)

    meeting = BatchScheduler()
    meeting.run([lambda number=number: worker(number) for number in range(3)])
    assert (meeting.rounds, meeting.calls) == (2, 6)
    for number, row in enumerate(rows):
        alone = read(lm, row)
        assert torch.allclose(found[number].log_probabilities, alone.log_probabilities, atol=1e-4)
        assert found[number].layers[0][0].shape == alone.layers[0][0].shape


def test_a_row_that_is_too_long_is_refused():
    lm = quick("ours").captioner.model("lm")
    with pytest.raises(TextError, match="fewer steps"):
        read(lm, torch.zeros(1, lm.max_length + 1, dtype=torch.long))


def test_marks_and_rules(photos):
    describer = quick("ours")
    language = Language(describer.objective(photos[0]), "")
    lm = language.lm
    (ids,) = lm.plain_ids(["A dog runs."])
    end = next(iter(lm.end_ids))
    assert bool(language.stops[ids[-1]])
    assert not language.stops[ids[:-1]].any()
    assert bool(language.stops[end])
    assert not bool(language.inner[end])
    assert language.inner[ids].tolist() == [True, True, True, False]
    assert language.usable[[*ids, end]].all()
    assert language.closed([*ids, end]) == (ids, True)
    assert language.closed(ids[:2]) == (ids[:2], False)
    (twice,) = lm.plain_ids(["A dog and a dog and a dog."])
    assert language.texts([ids, twice, []]) == ["A dog runs.", None, None]


@pytest.fixture(scope="module")
def preset(checkpoint, tmp_path_factory):
    """A preset of random models of real architectures, with real tokenizers."""
    path = tmp_path_factory.mktemp("preset") / "random.yaml"
    roles = {"lm": "gpt2", "image_text": "clip", "sentiment": "roberta"}
    values = {role: str(checkpoint(name)) for role, name in roles.items()}
    path.write_text(yaml.safe_dump({**values, "prefix": "An image of", "candidates": 4, "beams": 2}))
    return str(path)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ours", {"steps": 3}),
        ("paper-transport", {"steps": 2, "probe": None}),
        ("best-of-n", {"count": 30, "steps": 4}),
        ("guided-decoding", {"steps": 3, "top_k": 5}),
        ("gibbs", {"length": 3, "sweeps": 2, "top_k": 4}),
        ("cache-gradient", {"steps": 2, "iterations": 1, "top_k": 4}),
    ],
)
def test_other_models_do_as_well(preset, photos, name, changes, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path))
    recipe = load_recipe(name, models=preset, **changes)
    describer = recipe.build()
    describer.load()
    found = describer(photos[0], seed=1)
    assert found.text.startswith("An image of")
    assert len(found.text) > len("An image of")
    assert found.value == describer.objective(photos[0]).exact(found.text).value
    assert found == describer(photos[0], seed=1)
