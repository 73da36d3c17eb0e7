"""Prefixes, texts to begin with and required words that rules or models refuse."""

import json
from pathlib import Path

import pytest
import yaml

import promptfuse as pf

PHOTOS = Path(__file__).parent.parent.parent / "examples" / "photos"
INITS = {
    "GCG": lambda init: pf.GCG(init=init, batch=4, top_k=8),
    "PEZ": lambda init: pf.PEZ(init=init, transport="none"),
    "RandomSearch": lambda init: pf.RandomSearch(init=init, candidates=4),
    "Polish": lambda init: pf.Polish(init=init, candidates=4),
}
CAFE = "Caf\u00e9 au lait"


@pytest.fixture(scope="module")
def fluent() -> pf.Objective:
    return pf.Objective(pf.Fluency(pf.load_model("mini-lm")))


@pytest.mark.parametrize("method", INITS.values(), ids=INITS)
@pytest.mark.parametrize(
    ("init", "rules", "reason"),
    [
        ("x x x", {}, "it has 'x' twice in a row (no_repeated_word)"),
        ("x x x", {"no_repeated_word": False}, "it has 'x x' twice (no_repeat_ngram 2)"),
        ("a dog", {"banned": ("dog",)}, "the banned word 'dog'"),
        ("a dog", {"max_tokens": 1}, "it has 2 tokens (max_tokens 1)"),
        (CAFE, {"ascii": True}, "which is not ASCII"),
        ("a\u200bb", {"ascii": False}, "control or format character"),
        ("one\ntwo", {}, "a line break"),
        ("a<|endoftext|>b", {}, "special token"),
    ],
)
def test_the_rule_that_refuses_a_text_to_begin_with_is_named(fluent, method, init, rules, reason):
    with pytest.raises(pf.TextError) as error:
        pf.Search(fluent, method(init), constraints=pf.Constraints(**rules))
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("prefix", "rules", "reason"),
    [
        (CAFE, {"ascii": True}, "which is not ASCII"),
        ("one\ntwo", {}, "a line break, .*context of its Fluency term"),
        ("one\u202etwo", {"ascii": False}, "control or format character"),
        ("the the", {}, "no_repeated_word"),
        ("a dog runs", {"max_words": 2}, "3 words"),
    ],
)
def test_the_rule_that_refuses_a_prefix_is_named(fluent, prefix, rules, reason):
    with pytest.raises(pf.TextError, match=reason.replace(", .*", ".*")):
        pf.Search(fluent, pf.AutoDAN(4), prefix=prefix, constraints=pf.Constraints(**rules))


def test_a_model_that_cannot_read_the_beginning_is_named():
    tone, lm = pf.load_model("mini-tone"), pf.load_model("mini-lm")
    objective = pf.Objective(pf.Fluency(lm), pf.ClassProbability(tone, "positive"))
    for settings in ({"prefix": "\u4e00 dog"}, {"method": pf.Polish(init="\u4e00 dog")}):
        with pytest.raises(pf.TextError, match=r"mini-tone reads it as '.*round_trip"):
            pf.Search(objective, **settings)
    rules = pf.Constraints(ascii=False, required=("\u4e00",))
    with pytest.raises(pf.ConfigError, match=r"required: .* mini-tone reads it as"):
        pf.Search(objective, constraints=rules)


@pytest.mark.parametrize("method", [*INITS.values(), lambda init: pf.AutoDAN(6)], ids=[*INITS, "AutoDAN"])
def test_what_is_added_to_a_text_is_ascii_unless_told_otherwise(fluent, method):
    settings = {"prefix": CAFE} if isinstance(method(CAFE), pf.AutoDAN) else {}
    search = pf.Search(fluent, method(CAFE), pf.BeamSearch(2), steps=2, **settings)
    texts = [beam.text for step in search for beam in step.beams]
    assert texts
    for text in (*texts, search.result().text):
        assert set(text) - set(CAFE) <= set(map(chr, range(32, 127)))


def test_without_the_rule_control_characters_still_never_come(fluent):
    rules = pf.Constraints(ascii=False)
    search = pf.Search(fluent, pf.RandomAppend(40), pf.BeamSearch(4), steps=3, constraints=rules)
    assert all(beam.text.isprintable() for step in search for beam in step.beams)
    assert search.proposer.allowed.sum() >= pf.Search(fluent, pf.RandomAppend(4)).proposer.allowed.sum()
    texts = fluent.primary.decode([[index] for index in search.proposer.allowed.nonzero()[:, 0].tolist()])
    assert not any(letter in text for text in texts for letter in "\n\r\t\x00\x7f\u200b\u2028")


def test_a_required_word_that_was_not_found_is_told_of(fluent, caplog):
    rules = pf.Constraints(required=("photosynthesis", "dog"))
    result = pf.Search(fluent, pf.AutoDAN(8), steps=2, prefix="A dog", constraints=rules).run()
    assert (result.satisfied, result.complete, result.missing) == (False, False, ("photosynthesis",))
    (note,) = result.notes
    assert "'photosynthesis'" in note
    assert note in [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    found = pf.Search(fluent, pf.AutoDAN(8), steps=9, prefix="A photosynthesis dog", constraints=rules).run()
    assert (found.satisfied, found.missing) == (True, ())


def test_the_command_line_tells_by_its_exit_code(tmp_path, promptfuse):
    file = tmp_path / "run.yaml"
    values = {
        "models": {"lm": "mini-lm"}, "terms": {"fluency": {"kind": "Fluency", "model": "lm"}},
        "method": {"kind": "AutoDAN", "candidates": 8}, "stopping": {"steps": 2},
        "constraints": {"required": ["photosynthesis"]},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    code, out, err = promptfuse("optimize", file, "--json")
    row = json.loads(out)
    assert (code, row["satisfied"], row["missing"]) == (1, False, ["photosynthesis"])
    assert err.count("photosynthesis") == 1
    code, out, err = promptfuse("optimize", file, "--set", "constraints.required=[Z\u00fcrich]")
    assert (code, out) == (2, "")
    assert "set ascii to false" in err
    assert err.count("\n") == 1
    code, out, err = promptfuse(
        "optimize", file, "--set", "constraints.required=[]", "--no-complete", "--json"
    )
    row = json.loads(out)
    assert (code, err, row["complete"], row["config"]["complete"]) == (0, "", True, False)
    assert not row["text"].endswith(".")


def test_a_search_without_a_step_has_a_result_or_says_why_not(fluent):
    for scalarisation in ("weighted", "chebyshev"):
        search = pf.Search(fluent, scalarisation=scalarisation)
        with pytest.raises(pf.ConfigError, match="take a step first"):
            search.result()
        for settings in ({"prefix": "A dog"}, {"method": pf.Polish(init="A dog")}):
            result = pf.Search(fluent, scalarisation=scalarisation, **settings).result()
            assert result.text == "A dog"
            expected = fluent.exact("A dog").value if scalarisation == "weighted" else 0.0
            assert result.value == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_the_search_of_the_demo_finds_the_balloon():
    captioner = pf.Captioner("mini")
    photo = PHOTOS / "hot_air_balloon.jpg"
    known = captioner.objective(photo).exact("A hot air balloon flying in the sky.")
    assert captioner(photo).value <= known.value + 1e-4
