"""Gradients at whole texts against autograd, finite differences and plain loops."""

import pytest
import torch

import promptfuse as pf
from promptfuse.adapters.diagnostics.ranking import spearman
from promptfuse.objectives.endings import ContinuationTerm
from promptfuse.objectives.gradients import common_segments, text_gradient
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.swaps import Lexicon, SwapEstimator, pulled, shared
from promptfuse.search.methods.transports import transport as transport_of
from promptfuse.text.segments import segment_text
from tests.search.conftest import FREE, WORDS

TEXT = "A brown dog runs"


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_fluency_gradient_is_that_of_the_one_hot_tokens(model, exponent):
    lm = model("gpt2", torch.float64)
    term = pf.Fluency(lm, length_exponent=exponent)
    (row,), ((start, stop),) = lm.token_rows([TEXT])
    table = lm.embedding_table
    one_hot = torch.nn.functional.one_hot(torch.tensor(row), len(table)).to(table).requires_grad_(True)
    log_probabilities = lm.module(inputs_embeds=(one_hot @ table)[None]).logits[0].log_softmax(-1)
    loss = -(one_hot[1:] * log_probabilities[:-1]).sum() / ((len(row) - 1) ** exponent * 12 ** (1 - exponent))
    assert loss.item() == pytest.approx(term.exact(TEXT), abs=1e-9)
    loss.backward()
    found = text_gradient(term, TEXT)
    assert found.ids.tolist() == row[start:stop]
    torch.testing.assert_close(
        found.gradient @ table.T + found.labels, one_hot.grad[start:stop], atol=1e-9, rtol=1e-6
    )


def make_terms(model) -> list[pf.Term]:
    lm, tone = model("gpt2", torch.float64), model("bert", torch.float64)
    return [
        pf.ClassProbability(tone, "positive", prefix="I think ", suffix=" indeed"),
        pf.TargetContinuation(lm, [" in the park", " at sunset."]),
        pf.TargetContinuation(lm, " in the park", prefix="The ", suffix=" and"),
        pf.Fluency(lm, prefix="It is: "),
    ]


@pytest.mark.parametrize("number", range(4))
def test_gradients_of_terms_against_finite_differences(model, number):
    term = make_terms(model)[number]
    found = text_gradient(term, TEXT)
    judge, wrapped = term.model, term.wrap(TEXT)
    (row,), ((start, stop),) = judge.token_rows([wrapped])
    rows, content = term.rows([TEXT]) if isinstance(term, ContinuationTerm) else ([row], [(start, stop)])
    batch = judge.collate(rows, content)
    # The text's tokens are found by their characters; here they are found by counting from the end.
    behind = len(judge.tokenizer(term.suffix, add_special_tokens=False)["input_ids"])
    head = stop - behind - len(found.ids)
    base = judge.embedding(batch.ids).detach()
    direction = torch.randn(
        base.shape[-1], generator=torch.Generator().manual_seed(number), dtype=torch.float64
    )
    for place in range(len(found.ids)):
        assert (batch.ids[:, head + place] == found.ids[place]).all()
        values = []
        for sign in (1, -1):
            moved = base.clone()
            moved[:, head + place] += sign * 1e-5 * direction
            with torch.no_grad(), judge.embeddings_from(moved):
                values.append(float(term.losses(batch).sum()))
        slope = (values[0] - values[1]) / 2e-5
        assert float(found.gradient[place] @ direction) == pytest.approx(slope, abs=1e-5)


def test_only_the_text_has_gradients_not_what_stands_around_it(model):
    term = make_terms(model)[0]
    found = text_gradient(term, TEXT)
    pieces = [TEXT[start:stop] for start, stop in found.spans]
    assert "".join(pieces) == TEXT.replace(" ", "")
    assert found.labels is None


@pytest.mark.parametrize("name", ["clip", "bert", "llama", "siglip"])
@pytest.mark.parametrize("text", ["A brown dog runs", " It's a strawberry cake, isn't it?", "dog"])
def test_segments_are_those_of_the_tokenizers(model, name, text):
    tokenizers = [model("gpt2").tokenizer, model(name).tokenizer]
    spans = [
        tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        for tokenizer in tokenizers
    ]
    expected = segment_text(text, tokenizers)
    found = common_segments(text, *spans)
    for which in (0, 1):
        lengths = [stop - start for start, stop in expected.token_spans[which]]
        assert [len(pair[which]) for pair in found] == lengths


def test_lexicon_against_a_loop_over_the_words(model):
    setting = SearchContext(pf.Objective(pf.Fluency(model("gpt2"))), pf.Constraints(), "", 1, 0)
    other = model("bert")
    lexicon = Lexicon(setting.whole_words, other)
    table = other.embedding_table
    generator = torch.Generator().manual_seed(0)
    lengths = set()
    for n in (1, 2, 3):
        gradient = torch.randn(n, table.shape[1], generator=generator)
        ids = torch.randint(len(table), (n,), generator=generator)
        found = lexicon.changes(gradient, ids)
        for token, value in zip(lexicon.tokens.tolist(), found.tolist(), strict=True):
            word = other.tokenizer(setting.whole_words[token], add_special_tokens=False)["input_ids"]
            lengths.add(len(word))
            new = table[word]
            if len(word) < n:  # The last sub-token fills what is left.
                new = torch.cat([new, new[-1:].expand(n - len(word), -1)])
            elif len(word) > n:  # What is too much is averaged in the last place.
                new = torch.cat([new[: n - 1], new[n - 1 :].mean(0, keepdim=True)])
            assert value == pytest.approx(float((gradient * (new - table[ids])).sum()), abs=1e-4)
    assert lengths == {1, 2}


def test_pulled_gradient_is_that_of_autograd_through_the_coupling(model):
    """The two ways to send a gradient through the t-product map: by hand, and inside autograd's graph."""
    lm, clip = model("gpt2"), model("bert")
    term = pf.ClassProbability(clip, "positive")
    transport = pf.TProductTransport(pf.Adapter.fit(lm, clip), lm, clip, 1)
    cut = segment_text(TEXT, [lm.tokenizer, clip.tokenizer])
    n_a, n_b = ([stop - start for start, stop in spans] for spans in cut.token_spans)
    (ids,) = lm.plain_ids([TEXT])
    x_a = lm.embedding_table[torch.tensor(ids)][None].clone().requires_grad_(True)
    (row,), ((start, stop),) = clip.token_rows([TEXT])
    batch = clip.collate([row], [(start, stop)])
    y_b = clip.embedding(batch.ids).detach()
    coupled = transport.couple(x_a, y_b[:, start:stop], n_a, n_b)
    with clip.embeddings_from(torch.cat([y_b[:, :start], coupled, y_b[:, stop:]], dim=1)):
        term.losses(batch).sum().backward()
    gradient = text_gradient(term, TEXT)
    spans = lm.tokenizer(TEXT, return_offsets_mapping=True)["offset_mapping"]
    found = pulled(transport, gradient, common_segments(TEXT, spans, gradient.spans), len(ids))
    assert found.abs().max() > 0
    torch.testing.assert_close(found, x_a.grad[0], atol=1e-6, rtol=1e-5)


def test_gradients_of_a_segment_are_shared_out_by_overlap():
    gradient = torch.arange(1.0, 7.0)[:, None]
    found = shared(
        gradient, [(range(1), range(2)), (range(1, 4), range(2, 4)), (range(4, 6), range(4, 6))], 7
    )
    torch.testing.assert_close(found[:, 0], torch.tensor([3, 2, 7 / 3, 8 / 3, 5, 6, 0]))


def test_swaps_between_a_model_and_itself_are_its_own_products(model):
    """Placed by shared tokens, another model with the same table gives the gradient at every token."""
    lm, other = model("gpt2"), model("roberta")
    term, text = pf.ClassProbability(other, "positive"), "A brown dog isn't strawberry"
    setting = SearchContext(pf.Objective(pf.Fluency(lm), term), pf.Constraints(), "", 1, 0)
    estimator = SwapEstimator(setting, "landmark-pca")
    (ids,) = lm.plain_ids([text])
    gradient = text_gradient(term, text)
    segments = common_segments(text, lm.spans(text), gradient.spans)
    assert all(len(own) == len(rest) for own, rest in segments)
    found = estimator._carried(other, gradient, segments, ids)
    carrier = transport_of(lm, other, "landmark-pca", 1)
    naive = torch.stack(
        [gradient.gradient[at] @ (carrier.table - carrier.table[token]).T for at, token in enumerate(ids)]
    )
    torch.testing.assert_close(found, naive, atol=1e-5, rtol=1e-4)
    assert found.isfinite().all()


@pytest.mark.parametrize("kind", ["lexical", "t-product", "sparse-sums", "similarities", "landmark-pca"])
@pytest.mark.parametrize("text", ["runs red the .", "a dog fox old"])
def test_estimates_rank_swaps_as_their_true_values_do(puzzle, kind, text):
    setting = SearchContext(puzzle.objective, FREE, "", 1, 0)
    (ids,) = setting.encode([text])
    found = SwapEstimator(setting, kind).changes(text, ids)
    estimates, texts = [], []
    for place in range(len(ids)):
        for token in range(2, 2 + len(WORDS)):
            texts += setting.decode([[*ids[:place], token, *ids[place + 1 :]]])
            estimates.append(float(found[place, token]))
    true = puzzle.objective.totals(puzzle.objective.score(texts))
    # Eight words with random embeddings say little of where the one that is not shared should lie.
    assert spearman(torch.tensor(estimates), true) > (0.5 if kind in ("lexical", "t-product") else 0.3)


def test_terms_without_a_gradient_are_left_out(puzzle):
    with_box = pf.Objective(*puzzle.objective.terms.values(), pf.BlackBox(len))
    settings = [SearchContext(objective, FREE, "", 1, 0) for objective in (puzzle.objective, with_box)]
    (ids,) = settings[0].encode(["a dog runs ."])
    one, two = (SwapEstimator(setting, "lexical").changes("a dog runs .", ids) for setting in settings)
    assert torch.equal(one, two)
