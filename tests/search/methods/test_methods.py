"""What each method proposes."""

import pytest
import torch

import promptfuse as pf
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.gcg import GCGProposer
from promptfuse.search.methods.pez import LabelGradient, PEZProposer, SoftPrompt
from promptfuse.search.methods.polish import PolishProposer
from promptfuse.search.methods.random_search import RandomSearchProposer
from tests.search.conftest import FREE

LOOSE = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False)


def setting_of(objective: pf.Objective, prefix: str = "", **rules) -> SearchContext:
    return SearchContext(
        objective, pf.Constraints(no_repeat_ngram=0, no_repeated_word=False, **rules), prefix, 2, 0
    )


@pytest.fixture(scope="module")
def fluent(model) -> pf.Objective:
    return pf.Objective(pf.Fluency(model("gpt2")))


EDITS = [
    pf.GCG(init="dog runs through the", batch=16, top_k=8),
    pf.RandomSearch(init="dog runs through the", candidates=16),
    pf.RandomSearch(init="dog runs through the", ball="l2", radius=3.0, candidates=16),
    pf.PEZ(init="dog runs through the"),
    pf.Polish(init="dog runs through the", candidates=16),
]


@pytest.mark.parametrize("method", EDITS, ids=repr)
def test_edits_read_back_and_leave_the_prefix_alone(fluent, method, monkeypatch):
    search = pf.Search(fluent, method, pf.BeamSearch(2), prefix="A brown", steps=4, constraints=LOOSE)
    lm = fluent.primary
    kept = 0
    propose = search.proposer.propose
    seen = []
    monkeypatch.setattr(search.proposer, "propose", lambda beams: seen.append(propose(beams)) or seen[-1])
    for _ in range(4):
        search.step()
        for item in seen[-1].texts:
            kept += 1
            assert item.text.startswith("A brown")
            assert not item.text[len("A brown")].isalnum()
            assert tuple(lm.plain_ids([item.text])[0]) == item.ids
            assert lm.tokenizer.decode(item.ids) == item.text
    assert kept > 3
    for step in search.history:
        for beam in step.beams:
            assert beam.value == pytest.approx(fluent.exact(beam.text).value, abs=1e-4)


def test_gcg_draws_single_swaps_of_the_best_tokens(puzzle):
    setting = setting_of(puzzle.objective)
    method = pf.GCG(init="runs the runs dog", top_k=3, batch=100)
    proposer = GCGProposer(setting, method)
    (start,) = proposer.start([])
    proposals = proposer.propose([start]).texts
    changes = proposer.estimator.changes(start.text, start.ids)
    assert len(proposals) == 4 * 3
    for item in proposals:
        (place,) = (at for at, (old, new) in enumerate(zip(start.ids, item.ids, strict=True)) if old != new)
        usable = changes[place, 2:].clone()
        usable[start.ids[place] - 2] = torch.inf
        assert item.ids[place] - 2 in usable.topk(3, largest=False).indices


def test_gcg_defaults_are_those_of_the_paper():
    assert (pf.GCG().top_k, pf.GCG().batch, pf.GCG().init) == (256, 512, " ".join("!" * 20))
    assert (pf.PEZ().lr, pf.PEZ().weight_decay) == (0.1, 0.1)


def test_gcg_goes_on_from_the_best_of_the_batch_even_if_it_is_worse(puzzle):
    best = puzzle.best(4)[0]
    search = pf.Search(puzzle.objective, pf.GCG(init=best, top_k=3, batch=8), pf.Greedy(), constraints=FREE)
    step = search.step()
    assert step.beams[0].value > puzzle.best(4)[1]
    assert step.best.text == best


def test_random_search_stays_within_its_ball(fluent):
    proposer = RandomSearchProposer(
        setting_of(fluent), pf.RandomSearch(init="dog runs through the grass", radius=2, candidates=60)
    )
    (start,) = proposer.start([])
    counts = [
        sum(old != new for old, new in zip(start.ids, item.ids, strict=True))
        for item in proposer.propose([start]).texts
    ]
    assert len(counts) > 20
    assert set(counts) == {1, 2}


def test_l2_ball_of_no_size_moves_nothing_and_a_wide_one_much(fluent):
    changed = []
    for radius in (0.3, 3.0, 30.0):
        proposer = RandomSearchProposer(
            setting_of(fluent), pf.RandomSearch("l2", radius, init="dog runs through the", candidates=40)
        )
        (start,) = proposer.start([])
        rows = proposer._moved(start.ids, 40)
        changed.append(sum(old != new for row in rows for old, new in zip(start.ids, row, strict=True)))
    assert changed[0] < changed[1] < changed[2]
    assert changed[0] == 0


def test_polish_edits_one_word_at_a_time(puzzle):
    proposer = PolishProposer(setting_of(puzzle.objective), pf.Polish(init="the dog runs", candidates=500))
    (start,) = proposer.start([])
    old = start.text.split()
    kinds = set()
    for item in proposer.propose([start]).texts:
        new = item.text.split()
        kinds.add(len(new) - len(old))
        if len(new) == len(old):
            assert sum(a != b for a, b in zip(old, new, strict=True)) == 1
        else:
            long, short = (new, old) if len(new) > len(old) else (old, new)
            assert any(long[:at] + long[at + 1 :] == short for at in range(len(long)))
    assert kinds == {-1, 0, 1}


def test_polish_keeps_improvements_only_and_signs_in_place(fluent):
    method = pf.Polish(init="A brown dog, runs through the grass.", candidates=40)
    search = pf.Search(fluent, method, pf.BeamSearch(2), steps=4)
    values = [search.step().beams[0].value for _ in range(3)]
    assert values == sorted(values, reverse=True)
    assert all(beam.text.endswith(".") for step in search.history for beam in step.beams)
    assert all(beam.text.count(",") == 1 for step in search.history for beam in step.beams)


def test_polish_tries_other_words_when_nothing_helped(fluent):
    proposer = PolishProposer(setting_of(fluent), pf.Polish(init="A brown dog", candidates=12))
    (start,) = proposer.start([])
    first, second = ({item.text for item in proposer.propose([start]).texts} for _ in range(2))
    assert first
    assert second
    assert not first & second


def test_adamw_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 4, generator=generator)
    parameter = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.1)
    prompt = SoftPrompt(start, torch.zeros(3, 4), torch.zeros(3, 4), 0, (), "")
    for _ in range(7):
        gradient = torch.randn(3, 4, generator=generator)
        parameter.grad = gradient.clone()
        optimizer.step()
        prompt = prompt.stepped(gradient, 0.1, 0.1)
    torch.testing.assert_close(prompt.embeddings, parameter.detach(), atol=1e-6, rtol=1e-5)


def test_label_gradient_is_exact_for_an_output_matrix_that_is_the_table():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(50, 6, generator=generator)
    hidden = torch.randn(3, 6, generator=generator)
    labels = -(hidden @ table.T).log_softmax(-1)
    torch.testing.assert_close(LabelGradient(table).at(labels), -hidden, atol=1e-4, rtol=1e-4)


def test_projection_is_the_nearest_text_that_reads_back(fluent):
    lm = fluent.primary
    proposer = PEZProposer(setting_of(fluent), pf.PEZ(length=3))
    ids = lm.plain_ids([" dog runs through"])[0]
    assert proposer.project(lm.embedding_table[torch.tensor(ids)] * 2.5)[0] == tuple(ids)
    # Letters that the tokenizer would merge: they do not read back as they are.
    letters = [lm.tokenizer.convert_tokens_to_ids(letter) for letter in ("t", "h", "e")]
    assert lm.plain_ids([lm.tokenizer.decode(letters)])[0] != letters
    found, text = proposer.project(lm.embedding_table[torch.tensor(letters)])
    assert tuple(lm.plain_ids([text])[0]) == found
    assert len(found) == 3
    assert sum(a == b for a, b in zip(found, letters, strict=True)) >= 1


def test_each_beam_has_a_soft_prompt_of_its_own(puzzle):
    search = pf.Search(puzzle.objective, pf.PEZ(length=4), pf.BeamSearch(3), steps=6, constraints=FREE)
    assert len(search.beams) == 3
    search.run()
    assert {beam.text for beam in search.beams} <= set(search.proposer.prompts)


def test_soft_prompts_pass_by_texts_that_may_not_be_proposed(puzzle):
    """The projection goes through texts with the banned word; none of them is kept."""
    rules = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False, banned=("red",))
    search = pf.Search(
        puzzle.objective,
        pf.PEZ(length=4, weight_decay=1.0),
        pf.BeamSearch(2),
        steps=12,
        patience=12,
        constraints=rules,
    )
    passed = set()
    gradient = search.proposer._gradient
    search.proposer._gradient = lambda prompt: passed.add(prompt.text) or gradient(prompt)
    result = search.run()
    assert any("red" in text for text in passed)
    assert result.complete
    assert not any("red" in beam.text for step in search.history for beam in step.beams)
    assert len({beam.text for step in search.history for beam in step.beams}) > 1


@pytest.mark.slow
def test_batch_size_changes_no_edit(puzzle):
    for method in (
        pf.GCG(init="runs the runs dog", top_k=6, batch=8),
        pf.RandomSearch(length=4, candidates=9),
    ):
        runs = []
        for batch_size in (1, 5, None):
            search = pf.Search(
                puzzle.objective, method, pf.BeamSearch(3), steps=5, constraints=FREE, batch_size=batch_size
            )
            runs.append([[beam.text for beam in step.beams] for step in search])
        assert runs[0] == runs[1] == runs[2]


def test_starts_that_cannot_be_are_named(fluent):
    with pytest.raises(pf.TextError, match="breaks the constraints: it has 'the' twice in a row"):
        pf.Search(fluent, pf.GCG(init="the the"))
    with pytest.raises(pf.ConfigError, match="Polish has no text to begin with"):
        pf.Search(fluent, pf.Polish())
    with pytest.raises(pf.ConfigError, match="loosen them or give init"):
        pf.Search(fluent, pf.PEZ(length=5), constraints=pf.Constraints(max_words=2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pf.GCG(init=" "), "at least one token"),
        (lambda: pf.GCG(batch=0), "must be at least 1"),
        (lambda: pf.PEZ(transport="lexical"), "has no gradient for soft embeddings"),
        (lambda: pf.RandomSearch(ball="l1"), "choose l0 or l2"),
        (lambda: pf.RandomSearch(radius=0.5), "must be at least 1 for the l0 ball"),
        (lambda: pf.Polish(moves=("swap",)), "choose from: replace, insert, delete"),
        (lambda: pf.Chain(), "at least one method"),
        (lambda: pf.Chain(pf.AutoDAN(), pf.Polish(), steps=(3,)), "1 numbers for 2 methods"),
        (lambda: pf.Chain(pf.Chain(pf.AutoDAN(), steps=(2,)), pf.Polish()), "outermost chain"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(pf.ConfigError, match=message):
        make()


def test_polishing_a_text_that_was_cut_off_does_not_make_it_complete():
    lm = pf.load_model("mini-lm")
    chain = pf.Chain(pf.AutoDAN(candidates=4), pf.Polish(moves=("replace",), candidates=4), steps=(4, 1))
    result = pf.Search(pf.Objective(pf.Fluency(lm)), chain, pf.BeamSearch(2), prefix="A man in").run()
    assert not result.text.endswith(".")
    assert not result.complete
    chain = pf.Chain(pf.AutoDAN(candidates=4), pf.Polish(moves=("replace",), candidates=4), steps=(16, 1))
    result = pf.Search(pf.Objective(pf.Fluency(lm)), chain, pf.BeamSearch(2), prefix="A man in").run()
    assert result.text.endswith(".")
    assert result.complete
