"""Recipes by name, from files and from fields: round trips, bases, and errors that name the nearest."""

import subprocess

import pytest
import yaml

from promptfuse._utils.yaml_files import dump_yaml, read_yaml
from promptfuse.errors import ConfigError
from promptfuse.evaluation.recipes import Recipe, SearchRecipe, describe, load_recipe, recipe_names
from promptfuse.evaluation.recipes.registry import FOLDER, recipes


def test_the_recipes_that_come_along():
    assert {"ours", "ours-thorough", "paper", "lm-proposals", "best-of-n", "best-of-n-image"} <= set(
        recipe_names()
    )


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_survives_a_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.kind in recipes
    assert type(recipe) is recipes[recipe.kind]
    path = tmp_path / "again.yaml"
    path.write_text(dump_yaml(describe(recipe)))
    assert load_recipe(path) == load_recipe(str(path)) == load_recipe(describe(recipe)) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_where_it_comes_from(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    # No field that says what its base or its class says already.
    values = yaml.safe_load(text)
    base = describe(load_recipe(values["base"])) if "base" in values else {}
    assert all(base.get(key) != value for key, value in values.items() if key != "base")


def test_all_recipes_have_the_same_objective():
    weights = {name: load_recipe(name).preset() for name in recipe_names()}
    kept = {
        (preset.lm, preset.image_text, preset.fluency_weight, preset.image_weight, preset.prefix)
        for preset in weights.values()
    }
    assert len(kept) == 1


def test_changes_replace_fields():
    recipe = load_recipe("ours", sentiment="positive", beams=2)
    assert isinstance(recipe, SearchRecipe)
    assert (recipe.sentiment, recipe.beams) == ("positive", 2)
    assert load_recipe("ours") == SearchRecipe()


def test_a_file_may_be_based_on_a_recipe_and_on_a_file(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text("base: lm-proposals\nbeams: 3\n")
    (tmp_path / "b.yaml").write_text("base: sub/a.yaml\nsteps: 5\n")
    recipe = load_recipe(tmp_path / "b.yaml")
    assert recipe == load_recipe("lm-proposals", beams=3, steps=5)
    assert load_recipe({"base": str(tmp_path / "b.yaml"), "steps": 6}).steps == 6


def test_models_are_relative_to_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: mini\nimage_weight: 7\n")
    (tmp_path / "r.yaml").write_text("kind: search\nmodels: mine.yaml\nfluency_weight: 2\n")
    preset = load_recipe(tmp_path / "r.yaml").preset()
    assert (preset.image_weight, preset.fluency_weight) == (7, 2)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("our", "no recipe 'our'; did you mean 'ours'"),
        ("none-such.yaml", "no such file"),
        ({"kind": "serch"}, "no kind 'serch'; did you mean 'search'"),
        ({"kind": ["search"]}, "no kind"),
        ({}, "'kind' is missing; choose from: search"),
        ({"kind": "search", "beems": 3}, "no field 'beems'; did you mean 'beams'"),
        ({"kind": "search", "beams": 0}, "beams: "),
        ({"kind": "search", "transport": "lexicl"}, "did you mean 'lexical'"),
        ({"kind": "samples", "by": "photo"}, "choose from: objective, image"),
        ({"kind": "samples", "top_p": 0}, "top_p: "),
        ({"base": "best-of-m"}, "did you mean 'best-of-n'"),
    ],
)
def test_errors_name_the_nearest(source, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe(source)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_based_on_itself_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match="based on itself"):
        load_recipe(tmp_path / "a.yaml")


def test_a_preset_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="no preset 'minni'"):
        load_recipe("ours", models="minni").preset()


def test_a_recipe_by_itself_has_nothing_to_build():
    with pytest.raises(TypeError, match=r"abstract method '?build"):
        Recipe(kind="search")


def test_the_recipes_are_package_data():
    # What the build takes along: all files of the package folder that git does not ignore.
    listed = subprocess.run(
        ["git", "check-ignore", *(str(path) for path in FOLDER.glob("*.yaml"))],
        capture_output=True, cwd=FOLDER, check=False,
    )  # fmt: skip
    if listed.returncode == 128:
        pytest.skip("no git checkout")
    assert listed.stdout == b""
    for name in recipe_names():
        assert read_yaml(FOLDER / f"{name}.yaml", "kind: search")
