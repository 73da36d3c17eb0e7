"""Where sentences end, and which texts a search may return."""

import json
from pathlib import Path

import pytest

import promptfuse as pf
from tests.search.conftest import FREE

PHOTOS = Path(__file__).parent.parent.parent / "examples" / "photos"

SURE = [
    "A dog.", "A dog!", "Is it a dog?", "What?!", 'He said "Hi."', "(A dog.)", "A dog.)", "the dogs'.",
    "A dog .",
    "It is 45.2.", "So do I.", "He said no.", "He sat.", "in a sec.", "a fig.",
    "under the sun.", "a rep.", "A dog.  ",
    "\u4e00\u53ea\u72d7\u3002", "\u72ac\uff01", "\u662f\u5417\uff1f",
    "\u0915\u0941\u0924\u094d\u0924\u093e\u0964",
    "\u0643\u0644\u0628\u061f", "\u300c\u72ac\u3002\u300d", "\u00abUn chien.\u00bb",
]  # fmt: skip
GOING = [
    "A man named Mr.", "Mrs.", "a woman with Ms.", "I saw Dr.", "a church of St.", "fruit, e.g.",
    "that is, i.e.",
    "cats vs.", "A man named John F.", "J.", "the Gen.", "dr.", '"Dr.', "45.", "Herr Prof.", "Dr. A.",
    "Pres.", "tools incl.", "Hunde bzw.",
]  # fmt: skip
OPEN = [
    "It costs 45.", "It costs $45.", "at 10:45.", "in the U.S.", "at 5 p.m.", "cats, dogs, etc.",
    "on Main St.",
    "vitamin C.", "King Jr.", "a Ph.D.", "on Sat.", "Washington D.C.", 'He said "Hi.', "(A dog.",
    "a board of 3 ft.", "as in Fig.", "Zimmer Nr.", "see Sec.",
]  # fmt: skip
ELLIPSIS = ["Once upon a time...", "Once upon a time\u2026", "Wait. . .", "dog..", 'He said "well..."']
BARE = ["A dog", "A dog,", "45.2", "", " ", ".", "!", "A dog:"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (text, kind)
        for kind, texts in (
            ("sure", SURE),
            ("going", GOING),
            ("open", OPEN),
            ("ellipsis", ELLIPSIS),
            ("bare", BARE),
        )
        for text in texts
    ],
)
def test_the_end_of_a_sentence(text, expected):
    from promptfuse.search.sentences import sentence_ending

    assert sentence_ending(text) == expected


@pytest.fixture(scope="module")
def captioner() -> pf.Captioner:
    return pf.Captioner("mini")


def liking(wanted: str):
    """A loss that is the lower the more of a text stands there."""

    def loss(text: str) -> float:
        shared = next((k for k, (a, b) in enumerate(zip(text, wanted, strict=False)) if a != b), len(text))
        return 1.0 - min(shared, len(wanted)) / len(wanted) if text == wanted[: len(text)] else 2.0

    return loss


def search_for(captioner: pf.Captioner, wanted: str, prefix: str, **settings) -> pf.Search:
    """A search that the words of a text are drawn into."""
    lm = captioner.model("lm")
    objective = pf.Objective(pf.Fluency(lm, 1e-3), pf.BlackBox(liking(wanted), 100.0))
    everything = pf.AutoDAN(candidates=len(lm.embedding_table), transport="none")
    return pf.Search(
        objective, everything, pf.BeamSearch(1), prefix=prefix, **{"steps": 4, "patience": 9} | settings
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [("A man named", "A man named Mr."), ("Once upon a", "Once upon a time..."), ("It is", "It is 45.2")],
)
def test_a_text_that_is_cut_within_its_sentence_is_not_complete(captioner, prefix, wanted):
    search = search_for(captioner, wanted, prefix, steps=len(wanted) - len(prefix))
    seen = {beam.text for step in search for beam in step.beams}
    assert wanted in seen  # It has gone through the mark.
    assert wanted not in search.finished


@pytest.mark.slow
def test_ellipses_end_texts_by_choice(captioner):
    wanted, prefix = "Once upon a time...", "Once upon a"
    for ellipsis in (True, False):
        rules = pf.Constraints(ellipsis=ellipsis)
        search = search_for(captioner, wanted, prefix, steps=6, constraints=rules)
        for _ in search:
            pass
        assert (wanted in search.finished) is ellipsis


@pytest.mark.slow
def test_texts_need_not_be_complete_if_that_is_switched_off(captioner):
    """A prompt is no sentence: the best of all texts is returned, however it ends."""
    wanted = "A dog that on"
    asked, free = (search_for(captioner, wanted, "A dog", complete=complete) for complete in (True, False))
    seen: dict[str, float] = {}
    for search in (asked, free):
        score = search.objective.score

        def watched(texts, _score=score, _search=search, **options):
            losses = _score(texts, **options)
            seen.update(zip(texts, _search.objective.totals(losses).tolist(), strict=True))
            return losses

        search.objective.score = watched
    result = free.run()
    assert result.text == wanted == min(seen, key=lambda text: seen[text])
    assert (result.complete, result.satisfied, result.incomplete) == (True, True, None)
    assert result.config["complete"] is False
    # What must be a sentence is told of where another text is far better.
    result = asked.run()
    if result.complete:
        assert result.incomplete is not None
        assert result.incomplete.text == wanted
        assert any(repr(wanted) in note and "far better" in note for note in result.notes)


def test_with_a_complete_text_a_far_better_one_that_is_not_is_told_of(captioner, caplog):
    lm = captioner.model("lm")
    objective = pf.Objective(pf.Fluency(lm), pf.BlackBox(lambda text: 9.0 * text.endswith("."), name="stop"))
    rules = pf.Constraints(banned_patterns=("[!?]",))
    search = pf.Search(objective, pf.AutoDAN(16), prefix="A dog", steps=9, constraints=rules)
    seen = {}
    score = objective.score
    objective.score = lambda texts, **options: seen.setdefault(tuple(texts), score(texts, **options))
    result = search.run()
    assert result.complete
    values = {
        text: float(objective.totals(losses)[index])
        for texts, losses in seen.items()
        for index, text in enumerate(texts)
        if text != result.text
    }
    best = min(values, key=lambda text: values[text])
    if not best.endswith("."):
        assert result.incomplete is not None
        assert result.incomplete.text == best
        assert result.incomplete.value == pytest.approx(objective.exact(best).value, abs=1e-4)
    far = result.incomplete is not None and result.value - result.incomplete.value > 0.25 * result.value
    assert bool(result.notes) is far
    assert [
        record.getMessage() for record in caplog.records if "far better" in record.getMessage()
    ] == result.notes
    plain = json.loads(result.to_json())
    assert plain["notes"] == result.notes


@pytest.mark.slow
def test_the_best_unfinished_text_is_remembered_by_a_resumed_search(captioner):
    def make() -> pf.Search:
        return captioner.search(PHOTOS / "cat.jpg", steps=9, beams=2, candidates=6)

    whole = make().run()
    broken = make()
    for _ in range(4):
        broken.step()
    resumed = make()
    resumed.load_state_dict(json.loads(json.dumps(broken.state_dict())))
    assert resumed.run().incomplete == whole.incomplete


def test_edited_texts_are_whole_however_they_end(puzzle):
    method = pf.RandomSearch(length=4, radius=4, candidates=20)
    result = pf.Search(puzzle.objective, method, pf.Greedy(), steps=3, constraints=FREE).run()
    assert result.complete
    assert result.incomplete is None
