"""How hard a search for a caption tries, in one word."""

import json
from pathlib import Path

import pytest

import promptfuse as pf
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.models import PRESETS, Preset
from promptfuse.tasks.effort import EFFORTS, Extent, extent

PHOTO = Path(__file__).parent.parent.parent / "examples" / "photos" / "cat.jpg"


def test_an_effort_is_a_scale_of_the_presets_numbers():
    preset = Preset(lm="a", image_text="b", beams=4, candidates=16)
    assert extent(preset) == extent(preset, "default") == Extent(4, 16, 4)
    assert extent(preset, "fast") == Extent(2, 16, 3)  # A third, rounded up.
    assert extent(preset, "thorough") == Extent(8, 32, 8)
    assert extent(preset.model_copy(update={"beams": 1}), "fast").beams == 1
    assert list(EFFORTS) == ["fast", "default", "thorough"]


@pytest.mark.parametrize("effort", ["thourough", "", 3, ["fast"], True])
def test_another_effort_is_refused_in_one_line(effort):
    with pytest.raises(pf.ConfigError, match=r"no effort .*(thorough|fast)") as error:
        pf.caption(PHOTO, effort=effort)
    assert "\n" not in str(error.value)


def test_the_command_line_refuses_it_before_any_work(promptfuse):
    code, out, err = promptfuse("caption", PHOTO, "--effort", "hard")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no effort 'hard'" in err


@pytest.mark.slow
def test_more_effort_looks_at_more_texts(promptfuse):
    captioner = pf.Captioner("mini")
    results = {effort: captioner(PHOTO, effort=effort) for effort in EFFORTS}
    fast, default, thorough = (result.exact_evaluations for result in results.values())
    assert fast < default < thorough
    assert results["default"].text == captioner(PHOTO).text
    assert results["fast"].config["strategy"]["width"] == 4
    assert results["thorough"].config["stopping"]["patience"] == 8
    code, out, err = promptfuse("caption", PHOTO, "--effort", "fast", "--json")
    assert (code, err, json.loads(out)["text"]) == (0, "", results["fast"].text)


def test_numbers_that_are_given_go_before_the_effort():
    captioner = pf.Captioner("mini")
    search = captioner.search(PHOTO, effort="thorough", beams=2, candidates=3)
    assert (search.strategy.width, search.method.candidates, search.patience) == (2, 3, 8)


def test_recipes_have_an_effort_too():
    recipe = load_recipe("ours-thorough")
    assert recipe.effort == "thorough"
    describer = recipe.build()
    mini = PRESETS["mini"]
    assert describer.method.candidates == 2 * mini.candidates
    assert describer.method.subtokens == mini.subtokens
    assert load_recipe("paper").build().method.subtokens == 4


@pytest.mark.slow
def test_words_of_one_token_need_no_gradients_of_several():
    """Why the preset has ``subtokens`` 1: with more the embedded models find the same texts."""
    captioner = pf.Captioner("mini")
    for name in ("cat", "horses"):
        photo = PHOTO.with_stem(name)
        few = captioner(photo, effort="fast")
        more = captioner(photo, effort="fast", method=pf.AutoDAN(candidates=4, subtokens=2))
        assert (few.text, few.exact_evaluations) == (more.text, more.exact_evaluations)
