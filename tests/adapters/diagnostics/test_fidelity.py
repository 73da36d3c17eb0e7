import json

import pytest
import torch
from PIL import Image

from promptfuse.adapters import Adapter, LexicalTransport
from promptfuse.adapters.diagnostics import Case, Figures, make_cases, measure
from promptfuse.adapters.diagnostics.plots import plot_fidelity
from promptfuse.adapters.diagnostics.probes import TEMPERATURE, make_probes, mean_embedding
from promptfuse.errors import ConfigError
from promptfuse.objectives import Term
from promptfuse.text.segments import encode_words

TRANSPORTS = [
    "lm-prior", "random", "t-product-paper", "t-product-default", "lexical", "lexical-surrogate", "oracle",
]  # fmt: skip


class Linear(Term):
    """A loss that is linear in the embeddings of the text: the lexical estimate is exact."""

    def outputs(self, batch):
        embedded = self.model.embedding(batch.ids) * batch.mask[..., None]
        direction = torch.randn(embedded.shape[-1], generator=torch.Generator().manual_seed(0))
        return (embedded @ direction).sum(1)


@pytest.fixture(scope="module")
def adapters(model):
    return {
        f"t-product-{preset}": Adapter.fit(model("gpt2"), model("roberta"), preset)
        for preset in ("paper", "default")
    }


@pytest.fixture(scope="module")
def report(model, adapters):
    cases = make_cases(model("gpt2"), model("roberta"), 2)
    return measure(model("gpt2"), model("roberta"), cases, adapters, candidates=30)


def test_every_transport_has_its_row(report):
    plain = json.loads(json.dumps(report.to_json()))
    assert list(plain) == TRANSPORTS
    for row in plain.values():
        assert row.keys() >= {"spearman", "recall_10_at_64", "recall_10_at_256"}
        assert abs(row["spearman"]) <= 1 + 1e-9
        assert row["recall_10_at_64"] == 1, "fewer candidates than are looked at"
        assert row["by_words"]
    for name in TRANSPORTS[2:6]:
        assert list(plain[name]["probes"]) == ["tempered", "expected", "frequent", "the"]
        assert plain[name]["probes"][plain[name]["probe"]]["spearman"] == plain[name]["spearman"]
    assert plain["oracle"]["spearman"] == pytest.approx(1)
    assert abs(plain["random"]["spearman"]) < 0.5


def test_the_table_shows_what_the_json_has(report):
    lines = str(report).splitlines()
    assert f"{report.texts} texts x 30 candidates" in lines[0]
    assert len(lines) == 2 + 3 + 4 * 4
    (oracle,) = [line for line in lines if line.startswith("oracle")]
    assert oracle.split()[2:] == ["1.000", "1.000", "1.000"]


def test_means_are_over_texts_and_lengths(report):
    lengths = {each.words for each in report.observations}
    per_length = [report.mean("random", "", words) for words in lengths]
    counts = [
        sum(each.words == words and each.transport == "random" for each in report.observations)
        for words in lengths
    ]
    weighted = sum(c * f.spearman for c, f in zip(counts, per_length, strict=True)) / sum(counts)
    assert report.mean("random", "").spearman == pytest.approx(weighted)
    assert sum(counts) == report.texts


def test_the_same_seed_gives_the_same(model, adapters, report):
    cases = make_cases(model("gpt2"), model("roberta"), 2)
    again = measure(model("gpt2"), model("roberta"), cases, adapters, candidates=30)
    assert again == report
    other = measure(model("gpt2"), model("roberta"), cases, adapters, candidates=30, seed=1)
    assert other != report


def test_a_linear_loss_is_estimated_exactly(model, adapters):
    """Known answer: with words in slots of their own length nothing is left to be wrong."""
    term = Linear(model("roberta"), 1.0, "", "", "linear")
    report = measure(model("gpt2"), model("roberta"), [Case(term, ("A brown dog",))], adapters, candidates=60)
    assert report.mean("lexical", "expected").spearman > 0.99
    assert report.mean("lexical", "the").spearman > 0.99
    assert report.mean("lexical-surrogate", "expected").spearman > 0.99


def test_progress_counts_texts(model, adapters):
    seen = []
    cases = [Case(Linear(model("roberta"), 1.0, "", "", "linear"), ("A dog", "A cat", "Two"))]
    measure(
        model("gpt2"), model("roberta"), cases, adapters, candidates=16,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_too_few_candidates_are_refused(model, adapters):
    with pytest.raises(ConfigError, match="must be at least 16"):
        measure(model("gpt2"), model("roberta"), [], adapters, candidates=15)


def test_probes_by_hand(model):
    lm, other = model("gpt2"), model("bert")
    probes = make_probes(other, LexicalTransport(lm, other))
    scores = lm.next_log_probabilities(lm.plain_ids(["A brown", "Two"]))
    assert list(probes) == ["tempered", "expected", "frequent", "the"]
    assert all(probe(scores).shape == (2, 16) for probe in probes.values())
    (ids,) = encode_words(other.tokenizer, [" the"])
    torch.testing.assert_close(probes["the"](scores)[1], other.embedding_table[list(ids)].mean(0))
    assert not torch.equal(*probes["expected"](scores))
    flat = probes["tempered"](scores * TEMPERATURE)
    torch.testing.assert_close(flat, probes["expected"](scores))
    words = [" dog", " bicycle"]
    by_hand = [other.embedding_table[list(ids)].mean(0) for ids in encode_words(other.tokenizer, words)]
    torch.testing.assert_close(mean_embedding(other, words), torch.stack(by_hand).mean(0))
    assert mean_embedding(other, [" 龘"]) is None


@pytest.mark.slow
def test_a_plot_is_written_and_bad_names_are_refused(report, tmp_path, monkeypatch):
    plot_fidelity(report, tmp_path / "table.png")
    for name in ("photo.png", "drawing.svg", "paper.pdf", "table.png"):
        if name != "table.png":  # Somebody else's, then one of ours.
            Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
            before = (tmp_path / name).read_bytes()
            with pytest.raises(ConfigError, match="was not written by promptfuse"):
                plot_fidelity(report, tmp_path / name)
            assert (tmp_path / name).read_bytes() == before
            (tmp_path / name).unlink()
        plot_fidelity(report, tmp_path / name)
        plot_fidelity(report, tmp_path / name)
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"must end in \.png, \.svg or \.pdf"):
        plot_fidelity(report, tmp_path / "table.txt")
    with pytest.raises(ConfigError, match="does not exist"):
        plot_fidelity(report, tmp_path / "no" / "table.png")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"promptfuse\[plot\]"):
        plot_fidelity(report, tmp_path / "table.png")


def test_figures_need_no_ten_candidates():
    truth = torch.arange(5.0)
    assert Figures.of(truth, truth) == Figures(pytest.approx(1), 1, 1)
