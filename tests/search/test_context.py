"""Searches behind a context, and texts behind a prefix: the first new token begins a word."""

from __future__ import annotations

from pathlib import Path

import pytest

import promptfuse as pf
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.objectives.fluency import Fluency

PHOTO = Path(__file__).parent.parent.parent / "examples" / "photos" / "cat.jpg"
LMS = ("gpt2", "llama", "opt", "qwen2")
LINES = "A man rides a horse.\nTwo cats sleep.\n"
METHODS = {
    "autodan": pf.AutoDAN(6),
    "random": pf.RandomAppend(6),
    "gcg": pf.GCG(batch=8, top_k=8, init=" dog cat"),
    "polish": pf.Polish(12, init="A dog runs"),
    "pez": pf.PEZ(length=3, updates=4),
    "chain": pf.Chain(pf.AutoDAN(4), pf.Polish(8), steps=(2, 1)),
    "ball": pf.RandomSearch(candidates=8, init="A dog runs"),
}


@pytest.mark.parametrize("name", LMS)
@pytest.mark.parametrize("context", [LINES, "It is:", 'It says "'])
@pytest.mark.parametrize("method", METHODS)
def test_every_value_of_a_search_behind_a_context_is_exact(model, name, context, method):
    term = pf.Fluency(model(name), context=context, length_exponent=0.5)
    objective = pf.Objective(term, pf.TextSimilarity(model("clip"), "A brown dog", weight=3.0))
    rules = pf.Constraints(ascii=True, round_trip=False)
    search = pf.Search(objective, METHODS[method], pf.BeamSearch(2), steps=3, constraints=rules)
    seen = 0
    for step in search:
        for beam in step.beams:
            seen += 1
            assert beam.ids == tuple(term.lm.plain_ids([beam.text])[0])
            exact = objective.exact(beam.text)
            assert beam.terms["fluency"] == pytest.approx(exact.terms["fluency"], abs=1e-4)
            assert beam.value == pytest.approx(exact.value, abs=1e-3)
            if beam.nll is not None:
                assert beam.nll / (len(beam.ids) * 12) ** 0.5 == pytest.approx(
                    exact.terms["fluency"], abs=1e-4
                )
            if method in ("autodan", "random", "chain"):  # A text behind a context begins as a text does.
                assert beam.text == beam.text.lstrip()
    assert seen


@pytest.mark.parametrize("name", LMS)
def test_proposals_are_those_behind_the_context(model, name):
    """A known answer: one step with one candidate takes the likeliest token behind the context."""
    lm = model(name)
    free = pf.Constraints(round_trip=False, no_repeat_ngram=0, no_repeated_word=False)
    method = pf.AutoDAN(1, transport="none")
    firsts = set()
    for context in ("", LINES, "The", "Look at this picture of the park, in which a"):
        term = pf.Fluency(lm, context=context)
        search = pf.Search(pf.Objective(term), method, pf.Greedy(), steps=1, constraints=free)
        search.step()
        found = (search.beams or [search.best])[0]
        proposer = search.proposer
        before = (
            lm._encode([context.rstrip()])[0] if context.rstrip() == context else lm._encode([context])[0]
        )
        chances = lm.next_log_probabilities([before])[0].masked_fill(~proposer.allowed, -float("inf"))
        ranked = chances.topk(400).indices.tolist()
        texts = [term.lm.decode([[token]])[0] for token in ranked]
        readable = [
            text
            for token, text in zip(ranked, texts, strict=True)
            if term.lm.plain_ids([text]) == [[token]]
            and free.allows(text)
            and (not context or text[0].isalnum() or text[0] in "([{\"'#@$")
        ]
        assert found.text == readable[0]
        firsts.add((found.text, round(found.value, 3)))
    assert len(firsts) > 1


@pytest.mark.parametrize("name", LMS)
@pytest.mark.parametrize("prefix", ["The", "A dog", "Two (", "A dog -", "in the", "A"])
def test_the_first_new_token_begins_a_word(model, name, prefix):
    objective = pf.Objective(pf.Fluency(model(name)))
    rules = pf.Constraints(round_trip=False)
    opens = prefix.endswith("(")
    for method in (pf.AutoDAN(32), pf.RandomAppend(32)):
        search = pf.Search(objective, method, pf.BeamSearch(16), prefix=prefix, steps=1, constraints=rules)
        texts = [item.text for item in search._score(search.proposer.propose(search.beams).texts)]
        assert texts
        for text in texts:
            behind = text[len(prefix) :]
            assert text.startswith(prefix)
            assert behind[:1].isspace() is not opens
            assert behind.strip()[:1].isalnum() or behind.strip()[:1] in "([{\"'#@$", text
    # Every token may follow if it is asked for.
    loose = pf.Search(
        objective, pf.AutoDAN(4000), pf.BeamSearch(4), prefix=prefix, glue=True, steps=1, constraints=rules
    )
    texts = [item.text for item in loose.proposer.propose(loose.beams).texts]
    assert any(text[len(prefix) : len(prefix) + 1].isalpha() for text in texts)
    assert loose.config["glue"] is True
    assert "glue" not in search.config


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["The", "Café au lait", 'A sign that says "', "A black-"])
def test_captions_do_not_glue_to_their_prefix(prefix):
    rules = pf.Constraints(ascii=False, round_trip=False)
    search = pf.Search(
        pf.Captioner("mini").objective(PHOTO),
        pf.AutoDAN(8),
        pf.BeamSearch(4),
        prefix=prefix,
        steps=3,
        constraints=rules,
    )
    search.step()
    for beam in search.beams:
        blank = beam.text[len(prefix)] == " "
        # Behind a hyphen either may stand: "black-haired", "black- and brown-haired".
        assert prefix[-1] == "-" or blank is (prefix[-1] != '"')
    config = {"kind": "samples", "count": 24, "steps": 6, "prefix": "The"}
    for kind in (config, {"kind": "guided-decoding", "steps": 3, "prefix": "The"}):
        describer = load_recipe(kind).build()
        describer.load()
        assert describer(PHOTO, 0).text.startswith("The ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        {"kind": "search", "steps": 4, "beams": 2, "candidates": 4},
        {"kind": "samples", "count": 16, "steps": 8},
        {"kind": "guided-decoding", "steps": 4, "top_k": 8},
        {"kind": "cache-gradient", "steps": 3, "top_k": 4, "iterations": 1},
        {"kind": "gibbs", "length": 4, "sweeps": 1, "top_k": 6},
        {"kind": "gibbs", "length": 4, "sweeps": 1, "top_k": 6, "start": "draft"},
    ],
    ids=lambda recipe: f"{recipe['kind']}-{recipe.get('start', '')}",
)
def test_every_recipe_describes_behind_examples(recipe):
    found = {}
    for before in (None, "Snow.\nSnow and ice.\nSnow on the ground.\n"):
        describer = load_recipe({**recipe, "lm_prefix": before} if before else recipe).build()
        describer.load()
        caption = describer(PHOTO, 0)
        assert caption.text == caption.text.strip()
        term = describer.objective(PHOTO).terms["fluency"]
        assert isinstance(term, Fluency)
        assert term.context == (before or "")
        assert caption.terms["fluency"] == pytest.approx(term.exact(caption.text), abs=1e-5)
        found[before] = caption
    texts = {caption.text for caption in found.values()}
    assert len(texts) == 2  # What the language model reads first is heard in every recipe.


@pytest.mark.slow
def test_recipes_glue_if_they_are_asked_to():
    kinds = [
        {"kind": "search", "steps": 2, "beams": 1, "candidates": 2},
        {"kind": "samples", "count": 4, "steps": 2},
        {"kind": "guided-decoding", "steps": 2, "top_k": 4},
        {"kind": "cache-gradient", "steps": 2, "top_k": 4, "iterations": 1},
        {"kind": "gibbs", "length": 3, "sweeps": 1, "top_k": 4},
    ]
    # "skateb" alone is no word: what the language model wants to do with it is to go on.
    prefix = "A skateb"
    for settings in kinds:
        texts = []
        for glue in (False, True):
            describer = load_recipe({**settings, "prefix": prefix, "glue": glue}).build()
            describer.load()
            texts.append(describer(PHOTO, 0).text)
        assert texts[0].startswith(f"{prefix} ")
        assert texts[1].startswith(prefix)
        assert texts[1][len(prefix)].isalpha(), settings


def test_a_saved_search_behind_a_context_goes_on(model, tmp_path):
    def search(**settings):
        term = pf.Fluency(model("gpt2"), **settings)
        return pf.Search(pf.Objective(term), pf.AutoDAN(4), pf.BeamSearch(2), steps=4)

    whole = search(context=LINES).run()
    half = search(context=LINES)
    half.step(), half.step()
    rest = search(context=LINES)
    rest.load_state_dict(half.state_dict())
    assert rest.run().text == whole.text
    for other in ({}, {"context": "Two cats sleep.\n"}, {"prefix": LINES}):
        with pytest.raises(pf.ConfigError, match=r"objective\.fluency"):
            search(**other).load_state_dict(half.state_dict())
