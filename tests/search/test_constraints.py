"""Rules for texts, and searches that obey them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import promptfuse as pf
from promptfuse.search.readback import RoundTrip, reads_back
from promptfuse.search.words import words_of
from tests.search.conftest import FREE


@pytest.mark.parametrize(
    ("rules", "allowed", "refused"),
    [
        ({"banned": ("cat",)}, "A dog runs.", "A Cat runs."),
        ({"banned": ("Cat",)}, "A catalogue.", "The cat's cat"),
        ({"banned": ("e-mail",)}, "Mail me, an E.", "Send an E-mail."),
        ({"banned": ("red car",)}, "A red bus and a car.", "The Red car."),
        ({"banned_patterns": (r"\d", "^An image")}, "A dog", "A dog 5"),
        ({"banned_patterns": (r"\d", "^An image")}, "This is An image", "An image of"),
        ({"max_words": 3}, "a dog runs.", "a dog runs far"),
        ({"vocabulary": ("a", "surfboard", "on")}, "on a surf", "on a dog"),
        ({"vocabulary": ("a", "surfboard", "on")}, "On a, surfboard", "a surf on"),
        ({"no_repeat_ngram": 3, "no_repeated_word": False}, "a dog a dog", "a red dog a red dog"),
        ({"no_repeat_ngram": 0}, "a dog and a dog", "a dog dog"),
    ],
)
def test_rules_for_every_text(rules, allowed, refused):
    constraints = pf.Constraints(**rules)
    assert constraints.allows(allowed)
    assert not constraints.allows(refused)


def test_tokens_are_counted_where_they_are_known():
    rules = pf.Constraints(max_tokens=4)
    assert rules.allows("a dog", 4)
    assert not rules.allows("a dog", 5)
    assert rules.allows("a dog")


@pytest.mark.parametrize(
    ("rules", "complete", "incomplete"),
    [
        ({"required": ("Red Fox", "runs")}, "a red fox, he runs", "a fox that is red runs"),
        ({"min_words": 3}, "a dog runs", "a dog"),
        ({"vocabulary": ("a", "surfboard")}, "a surfboard", "a surf"),
    ],
)
def test_rules_for_complete_texts(rules, complete, incomplete):
    constraints = pf.Constraints(**rules)
    assert constraints.allows(complete)
    assert constraints.allows(incomplete)
    assert constraints.completes(complete, 9)
    assert not constraints.completes(incomplete, 9)


def test_missing_phrases_are_named():
    rules = pf.Constraints(required=("red fox", "dog"), min_tokens=3)
    assert rules.missing("The Dog saw a fox") == ["red fox"]
    assert rules.missing("The Dog saw a red, fox") == []
    assert not rules.completes("dog, red fox", 2)


def test_progress_counts_words_of_phrases():
    rules = pf.Constraints(required=("red fox", "dog"))
    counts = {
        "": 0,
        "The": 0,
        "a re": 1,
        "a red": 2,
        "a red f": 3,
        "a red dog": 2,
        "a red fox": 4,
        "Red fox d": 5,
    }
    assert {text: rules.progress(text) for text in counts} == counts
    assert rules.progress("The red fox, a dog.") == 6
    assert rules.progress("a red.") == 2
    assert pf.Constraints().progress("a red fox") == 0


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"banned_patterns": ("(",)}, "'\\(' is not a valid regular expression"),
        ({"required": ("red cat",), "banned": ("Cat",)}, "banned too"),
        ({"required": ("cat",), "vocabulary": ("dog",)}, "not in the vocabulary"),
        ({"required": ("!",)}, "has no word"),
        ({"banned": ("!",)}, "has no word"),
        ({"required": ("a red car",), "banned": ("red car",)}, "banned too"),
        ({"min_words": 4, "max_words": 3}, "leave no text"),
        ({"max_tokens": 0}, "leave no text"),
        ({"banned": "cat"}, "give a list"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules, message):
    with pytest.raises(pf.ConfigError, match=message):
        pf.Constraints(**rules)


def test_lists_become_tuples_and_compare():
    assert pf.Constraints(banned=["cat"]) == pf.Constraints(banned=("cat",))


@pytest.mark.parametrize("method", [pf.AutoDAN(8), pf.RandomAppend(8)], ids=repr)
@pytest.mark.parametrize("strategy", [pf.BeamSearch(4), pf.UniformCost()], ids=repr)
def test_appended_texts_have_the_required_words(puzzle, method, strategy):
    """What the models like least is in the text all the same, once it is complete."""
    rules = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False, required=("runs", "old dog"))
    result = pf.Search(puzzle.objective, method, strategy, steps=14, patience=14, constraints=rules).run()
    assert result.complete
    assert rules.missing(result.text) == []
    assert all(rules.completes(item.text, len(item.ids)) for item in result.pareto_front)
    shortest = puzzle.best(4, ".")[1]
    assert result.value > shortest


def test_the_best_text_with_a_required_word_is_found(puzzle):
    rules = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False, required=("runs",), max_tokens=4)
    result = pf.Search(
        puzzle.objective, pf.AutoDAN(8, transport="none"), pf.BeamSearch(64), steps=4, constraints=rules
    ).run()
    from itertools import product

    from tests.search.conftest import WORDS

    texts = [" ".join(words) for length in (2, 3, 4) for words in product(WORDS, repeat=length)]
    texts = [text for text in texts if text.endswith(".") and "runs" in text and text.count(".") == 1]
    values = puzzle.objective.totals(puzzle.objective.score(texts))
    assert result.text == texts[int(values.argmin())]


def test_lengths_and_vocabulary_hold_in_a_search(puzzle):
    rules = pf.Constraints(
        no_repeat_ngram=0,
        no_repeated_word=False,
        min_words=3,
        max_words=5,
        vocabulary=("the", "old", "dog", "runs"),
    )
    search = pf.Search(
        puzzle.objective, pf.AutoDAN(8), pf.BeamSearch(3), steps=12, patience=12, constraints=rules
    )
    result = search.run()
    assert 3 <= len(result.text.rstrip(" .").split()) <= 5
    for step in search.history:
        for beam in step.beams:
            assert set(beam.text.replace(".", "").split()) <= {"the", "old", "dog", "runs"}


def test_a_text_that_a_model_cannot_spell_is_not_kept(model, puzzle):
    """The classifier of the puzzle does not know the word, so it would judge another text."""
    lm, classifier = model("gpt2"), puzzle.objective.terms["class"].model
    objective = pf.Objective(pf.Fluency(lm), pf.ClassProbability(classifier, "good", 1.0))
    trip = RoundTrip(objective)
    assert trip.models == [lm, classifier]
    assert trip.holds("a red fox")
    assert not trip.holds("a red cat")
    for round_trip in (True, False):
        rules = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False, round_trip=round_trip)
        search = pf.Search(
            objective,
            pf.AutoDAN(40, transport="none"),
            pf.BeamSearch(4),
            prefix="a",
            steps=3,
            constraints=rules,
        )
        search.run()
        kept = [beam.text for step in search.history for beam in step.beams]
        spelled = [reads_back(classifier, text) for text in kept]
        assert all(spelled) is round_trip or not kept


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "clip", "bert", "siglip", "qwen2"])
def test_every_tokenizer_reads_plain_english_back(model, name):
    assert reads_back(model(name), "A brown dog runs through the grass, it's 10 dollars.")


def test_characters_that_a_model_does_not_know_do_not_read_back(model):
    assert not reads_back(model("bert"), "A dog \u4eba")
    assert reads_back(model("gpt2"), "A dog \u4eba")


def test_constraints_may_leave_nothing_to_say(puzzle):
    rules = pf.Constraints(vocabulary=("zebra",), banned_patterns=(r"\.",))
    with pytest.raises(pf.ConfigError, match="no token can follow"):
        pf.Search(puzzle.objective, pf.AutoDAN(8), pf.Greedy(), constraints=rules).run()
    assert FREE.allows("")


@given(
    st.lists(
        st.sampled_from(["a", "A", "dog", "dogs", "it's", "x_y", ".", "-", "", "caf\u00e9"]), max_size=9
    ),
    st.sampled_from([" ", "  ", ""]),
    st.integers(0, 3),
    st.booleans(),
)
def test_rules_of_a_text_are_those_of_its_words(words, blank, size, echo):
    """Whatever is remembered of its beginning."""
    text = blank.join(words)
    found = words_of(text)
    runs = [tuple(found[start : start + size]) for start in range(len(found) - size + 1)] if size else []
    repeats = len(set(runs)) < len(runs)
    echoes = any(found[index] == found[index - 1] for index in range(1, len(found)))
    rules = pf.Constraints(no_repeat_ngram=size, no_repeated_word=echo, max_words=6)
    assert rules.allows(text) == (not repeats and not (echo and echoes) and len(found) <= 6)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"required": ("Zürich",), "ascii": True},
            "'Zürich' has 'ü', which is not ASCII.*set ascii to false",
        ),
        ({"required": ("Zürich",)}, "set ascii to false"),
        ({"required": ("a\u200bb",), "ascii": False}, r"control or format character \(zero width space\)"),
        ({"required": ("a\nb",)}, "a line break"),
        ({"required": ("dog",), "banned_patterns": ("[Dd]og|DOG",)}, "matches the banned pattern"),
        ({"required": ("dog",), "banned_patterns": ("(?i)d.g",)}, "matches the banned pattern"),
        ({"required": ("the the",)}, "'the' twice in a row; set no_repeated_word"),
        ({"required": ("a dog, a dog",)}, "'a dog' twice"),
        ({"required": ("a red fox", "dog"), "max_words": 3}, "4 words do not fit into max_words 3"),
        ({"required": ("a red fox",), "max_tokens": 2}, "do not fit into max_tokens 2"),
        ({"vocabulary": ()}, "has no word"),
        ({"vocabulary": ("dog", "cat"), "banned": ("Dog", "cat")}, "all its words are banned"),
        ({"vocabulary": ("Zürich", "a"), "ascii": True}, "set ascii to false"),
        ({"vocabulary": ("dog",), "min_words": 2}, "repeat a word"),
        ({"min_words": 5, "max_tokens": 4}, "leave no text"),
        ({"banned": (5,)}, "5 is not a string"),
        ({"banned": 5}, "is not a list"),
        ({"max_words": "3"}, "'3' is not a whole number"),
        ({"max_words": True}, "True is not a whole number"),
        ({"ascii": "no"}, "neither true nor false"),
        ({"no_repeat_ngram": -1}, "must be at least 0"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(rules, message):
    with pytest.raises(pf.ConfigError, match=message):
        pf.Constraints(**rules)


@pytest.mark.parametrize(
    "rules",
    [
        {"required": ("Zürich",), "ascii": False},
        {"required": ("dog",), "banned_patterns": ("^dog", "dog$", r"\ba\b", "^(?!The )")},
        {"required": ("red fox", "fox red"), "max_words": 3},
        {"required": ("the the",), "no_repeated_word": False},
        {"required": ("a b a b",), "no_repeat_ngram": 3},
        {"vocabulary": ("dog",), "min_words": 2, "no_repeated_word": False},
        {"vocabulary": ("dog", "cat"), "banned": ("cat",)},
        {"banned": {"cat", "dog"}},
    ],
)
def test_rules_that_a_text_can_keep_are_taken(rules):
    assert hash(pf.Constraints(**rules))


@pytest.mark.parametrize(
    ("rules", "text", "reason"),
    [
        ({"ascii": True}, "Café", "it has 'é', which is not ASCII"),
        ({}, "a\tb", "it has a tab"),
        ({"ascii": False}, "a\u202eb", "control or format character"),
        ({"ascii": False}, "a\u2028b", "control or format character"),
        ({"no_repeat_ngram": 0}, "x x x", "it has 'x' twice in a row (no_repeated_word)"),
        ({"no_repeated_word": False}, "x x x", "it has 'x x' twice (no_repeat_ngram 2)"),
        ({"banned": ("dog", "red fox")}, "A Dog", "the banned word 'dog'"),
        ({"banned": ("dog", "red fox")}, "A Red fox", "the banned phrase 'red fox'"),
        ({"banned_patterns": (r"\d",)}, "4", "the banned pattern"),
        ({"max_words": 1}, "a dog", "it has 2 words (max_words 1)"),
        ({"vocabulary": ("a",)}, "a dog", "'dog' is not in the vocabulary"),
    ],
)
def test_the_rule_that_a_text_breaks_is_named(rules, text, reason):
    constraints = pf.Constraints(**rules)
    assert reason in (constraints.broken(text) or "")
    assert not constraints.allows(text)


def test_other_characters_are_kept_where_they_are_allowed():
    for rules in (pf.Constraints(), pf.Constraints(ascii=False)):
        assert rules.broken("Un café à Zürich, 一只狗\u3000\u00a0!") is None
    assert pf.Constraints(ascii=False).allows_token("é")
    assert not pf.Constraints().allows_token("é")
    for letter in "\x00\n\r\t\x7f\x85\u200b\u200e\u2028\ufeff\ue000\U000e0001":
        for ascii_only in (None, True, False):
            assert not pf.Constraints(ascii=ascii_only).allows(f"a{letter}b")
            assert not pf.Constraints(ascii=ascii_only).allows_token(letter)
