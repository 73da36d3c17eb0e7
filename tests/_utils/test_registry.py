import sys
from importlib.metadata import EntryPoint

import pytest

from promptfuse._utils import registry as registries
from promptfuse._utils.registry import Registry
from promptfuse.errors import ConfigError, PromptfuseWarning


@pytest.fixture
def registry():
    return Registry("method", "promptfuse.nothing")


def test_a_class_is_found_by_its_name(registry):
    @registry.register("walk")
    class Walk:
        pass

    assert registry.get_item("walk") is registry["walk"] is Walk
    assert list(registry) == ["walk"]
    assert "walk" in registry
    assert "fly" not in registry


def test_an_unknown_name_gets_the_nearest(registry):
    registry.register("walk")(int)
    with pytest.raises(ConfigError, match=r"no method is called 'wolk'.*walk"):
        registry.get_item("wolk")


def test_two_classes_of_one_name_are_refused(registry):
    registry.register("walk")(int)
    registry.register("walk")(int)
    with pytest.raises(ConfigError, match="two classes are registered as the method 'walk'"):
        registry.register("walk")(float)


def test_modules_are_imported_at_the_first_look_up(tmp_path, monkeypatch):
    (tmp_path / "late_module_of_mine.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("method", "promptfuse.nothing", {"late": "late_module_of_mine"})
    registry.register("walk")(int)
    for _ in range(2):  # A module that fails is not forgotten.
        with pytest.raises(RuntimeError, match="imported"):
            len(registry)


def test_entry_points_name_a_class_or_a_module(tmp_path, monkeypatch):
    registry = Registry("method", "promptfuse.nothing")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "outside_one.py").write_text("class Walk: pass\n")
    (tmp_path / "outside_two.py").write_text(
        "import outside_registry\n@outside_registry.registry.register('fly')\nclass Fly: pass\n"
    )
    (tmp_path / "outside_broken.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "outside_registry.py").write_text("registry = None\n")
    import outside_registry

    outside_registry.registry = registry
    points = [
        EntryPoint("walk", "outside_one:Walk", "promptfuse.nothing"),
        EntryPoint("any", "outside_two", "promptfuse.nothing"),
        EntryPoint("broken", "outside_broken", "promptfuse.nothing"),
    ]
    monkeypatch.setattr(registries, "entry_points", lambda group: points)
    with pytest.warns(PromptfuseWarning, match="the method 'broken' .*cannot be used.*no_such_module"):
        assert sorted(registry) == ["fly", "walk"]
    assert registry["walk"] is sys.modules["outside_one"].Walk


def test_names_are_known_without_an_import(tmp_path, monkeypatch):
    (tmp_path / "own_module_of_mine.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        registries, "entry_points", lambda group: [EntryPoint("fly", "no_such_module:Fly", group)]
    )
    registry = Registry("method", "promptfuse.nothing", {"walk": "own_module_of_mine"})
    registry.register("run")(int)
    assert registry.names() == ["walk", "run", "fly"]


def test_a_name_of_ours_cannot_be_taken(tmp_path, monkeypatch):
    registry = Registry("method", "promptfuse.nothing", {"walk": "own_walk_of_mine"})
    with pytest.raises(
        ConfigError, match="two classes are registered as the method 'walk': own_walk_of_mine"
    ):
        registry.register("walk")(int)


def test_one_item_imports_its_own_module_alone(tmp_path, monkeypatch):
    (tmp_path / "module_of_walk.py").write_text(
        "import module_of_registry\n@module_of_registry.registry.register('walk')\nclass Walk: pass\n"
    )
    (tmp_path / "module_of_registry.py").write_text("registry = None\n")
    (tmp_path / "module_of_run.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    import module_of_registry

    own = {"walk": "module_of_walk", "run": "module_of_run"}
    module_of_registry.registry = registry = Registry("method", "promptfuse.nothing", own)
    assert registry.get_item("walk").__name__ == "Walk"
    with pytest.raises(RuntimeError, match="imported"):
        list(registry)
