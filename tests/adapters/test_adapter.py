"""Fitting, reports, files."""

import json
import threading

import pytest
import torch

from promptfuse.adapters import Adapter, AdapterReport
from promptfuse.errors import AdapterError
from promptfuse.text.segments import encode_words, segment_text
from promptfuse.tproduct import t_pinv, t_product


@pytest.fixture(scope="module")
def models(make_model):
    return make_model("byte-level", 12), make_model("word-piece", 8, seed=1)


@pytest.fixture(scope="module")
def adapter(models, text_words):
    return Adapter.fit(*models, words=text_words)


def embedded(model, words, n):
    """(N, d, n) by hand, zero-padded on the right."""
    stacked = torch.zeros(len(words), model.embedding_table.shape[1], n)
    for row, ids in enumerate(encode_words(model.tokenizer, words)):
        stacked[row, :, : len(ids)] = model.embedding_table[list(ids)].T
    return stacked.double()


def words_of_length(models, words, n):
    counts = zip(*(encode_words(model.tokenizer, list(words)) for model in models), strict=True)
    return [word for word, ids in zip(words, counts, strict=True) if max(map(len, ids)) == n]


def test_the_paper_preset_is_the_pseudo_inverse_over_distinct_words(models, text_words):
    adapter = Adapter.fit(*models, preset="paper", words=text_words)
    assert len(adapter.maps.by_length) > 4
    for n, g in adapter.maps.by_length.items():
        x, y = (embedded(model, words_of_length(models, text_words, n), n) for model in models)
        dense = t_product(t_pinv(x, rcond=1e-6), y)
        torch.testing.assert_close(g.double(), dense, rtol=1e-4, atol=1e-4)


def test_the_default_preset_minds_frequencies_and_the_paper_preset_does_not(models, text_words):
    skewed = {word: count * (1000.0 if word == " the" else 1.0) for word, count in text_words.items()}
    for preset, same in (("paper", True), ("default", False)):
        even, uneven = (Adapter.fit(*models, preset=preset, words=words) for words in (text_words, skewed))
        assert torch.equal(even.maps.of_length(1), uneven.maps.of_length(1)) == same


def test_a_linear_relation_between_the_tables_is_found(make_model, text_words):
    """Same tokenizer, B's table a matrix times A's: known answer, R2 and cosine of 1."""
    model = make_model("byte-level", 6)
    matrix = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    image = type(model)("image", model.tokenizer, model.embedding_table @ matrix)
    adapter = Adapter.fit(model, image, words=text_words)
    torch.testing.assert_close(adapter.maps.positional, matrix, rtol=1e-2, atol=1e-2)
    first = adapter.report().lengths[0]
    assert first.r2 > 0.99
    assert first.cosine > 0.99
    text = segment_text("the dog and a Museum", [model.tokenizer])
    counts = [stop - start for start, stop in text.token_spans[0]]
    ids = torch.tensor(text.ids[0])
    mapped = adapter.push(model.embedding_table[ids][None], counts, counts)
    cosine = torch.nn.functional.cosine_similarity(mapped[0], image.embedding_table[ids], dim=1)
    assert cosine.min() > 0.9


def test_unrelated_tables_are_reported_as_such(adapter):
    figures = [entry.r2 for entry in adapter.report().lengths if entry.r2 is not None]
    assert figures
    assert max(figures) < 0.5


def test_the_report_counts_the_words(models, adapter, text_words):
    report = adapter.report()
    spelled = [encode_words(model.tokenizer, list(text_words)) for model in models]
    pairs = [(len(a), len(b)) for a, b in zip(*spelled, strict=True)]
    assert report.words == {pair: pairs.count(pair) for pair in set(pairs)}
    assert report.skipped == 0
    for entry in report.lengths:
        assert entry.words == sum(max(pair) == entry.n for pair in pairs)
        assert 0 <= entry.held_out < entry.words or entry.r2 is None
    assert report.positional.words == len(pairs)
    long = sum(count for (word, count), pair in zip(text_words.items(), pairs, strict=True) if max(pair) > 8)
    assert long > 0
    assert report.coverage == pytest.approx(1 - long / sum(text_words.values()))
    shown = str(report)
    assert "longer" in shown
    assert models[0].name in shown


def test_held_out_figures_are_those_of_words_not_fitted_on(models, text_words):
    """R2 by hand, from the words that the checksum holds out."""
    from zlib import crc32

    adapter = Adapter.fit(*models, preset="paper", words=text_words)
    entry = next(entry for entry in adapter.report().lengths if entry.r2 is not None)
    words = words_of_length(models, text_words, entry.n)
    held = [word for word in words if crc32(word.encode()) % 10 == 0]
    assert len(held) == entry.held_out
    x, y = (embedded(model, [word for word in words if word not in held], entry.n) for model in models)
    g = t_product(t_pinv(x, rcond=1e-6), y)
    x, y = (embedded(model, held, entry.n) for model in models)
    mapped = t_product(x, g)
    variance = (y - y.mean(0)).square().sum()
    if variance > 0:
        assert entry.r2 == pytest.approx(float(1 - (y - mapped).square().sum() / variance), rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(mapped.flatten(1), y.flatten(1)).mean()
    assert entry.cosine == pytest.approx(float(cosine), abs=1e-5)


def test_words_come_from_the_vocabularies_unless_given(models, tmp_path):
    default = Adapter.fit(*models)
    assert sum(default.report().words.values()) > 50
    file = tmp_path / "corpus.txt"
    file.write_text("the dog and the Museum\n" * 3, encoding="utf-8")
    from_file = Adapter.fit(*models, words=[file])
    assert sum(from_file.report().words.values()) == 4


def test_words_beyond_the_table_are_skipped(make_model, text_words):
    whole, cut = make_model("byte-level", 6), make_model("word-piece", 5, rows=50)
    report = Adapter.fit(whole, cut, words=text_words).report()
    assert report.skipped > 0
    assert sum(report.words.values()) == len(text_words) - report.skipped
    padded = make_model("word-piece", 5, rows=500)
    assert Adapter.fit(whole, padded, words=text_words).report().skipped == 0


def test_progress_counts_up_to_all_words(models, text_words):
    seen = []
    Adapter.fit(*models, words=text_words, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(text_words), len(text_words))
    assert seen == sorted(seen)


def test_fitting_twice_gives_the_same(models, adapter, text_words):
    again = Adapter.fit(*models, words=text_words)
    assert again.report() == adapter.report()
    assert torch.equal(again.maps.of_length(2), adapter.maps.of_length(2))


def test_bad_requests_are_refused_in_one_line(models, make_model):
    with pytest.raises(AdapterError, match="choose from default, paper"):
        Adapter.fit(*models, preset="papr")
    with pytest.raises(AdapterError, match="share no word"):
        Adapter.fit(models[0], make_model("clip", 4, rows=2), words={"dog": 1.0})


def test_saved_and_loaded_it_is_the_same(models, adapter, tmp_path):
    adapter.save_pretrained(tmp_path / "new" / "folder")
    loaded = Adapter.from_pretrained(str(tmp_path / "new" / "folder"))
    loaded.verify(*models)
    assert loaded.report() == adapter.report()
    assert loaded.fingerprints == adapter.fingerprints
    assert set(loaded.maps.by_length) == set(adapter.maps.by_length)
    for n in range(1, 12):
        assert torch.equal(loaded.maps.of_length(n), adapter.maps.of_length(n))


def test_the_report_survives_json(adapter):
    report = adapter.report()
    assert AdapterReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_saving_again_leaves_only_the_new_files(models, adapter, text_words, tmp_path):
    adapter.save_pretrained(tmp_path)
    adapter.save_pretrained(tmp_path)
    paper = Adapter.fit(*models, preset="paper", words=text_words)
    paper.save_pretrained(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert Adapter.from_pretrained(tmp_path).report().preset == "paper"


def flip(data, where):
    return data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :]


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*.safetensors", lambda data: flip(data, len(data) // 2)),
        ("*.safetensors", lambda data: data[:-5]),
        ("*.safetensors", lambda data: b""),
        ("adapter.json", lambda data: data[:100]),
        ("adapter.json", lambda data: b"\xff\xfe"),
        ("adapter.json", lambda data: b"[]"),
        ("adapter.json", lambda data: data.replace(b"byte-level-0", b"byte-level-9")),
        ("adapter.json", lambda data: data.replace(b'"format": 1', b'"format": 7')),
    ],
)
def test_damage_is_noticed(adapter, tmp_path, pattern, damage):
    adapter.save_pretrained(tmp_path)
    (file,) = tmp_path.glob(pattern)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(AdapterError, match=r"Adapter\.fit") as caught:
        Adapter.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(adapter, tmp_path):
    with pytest.raises(AdapterError, match="cannot read an adapter"):
        Adapter.from_pretrained(tmp_path / "nowhere")
    adapter.save_pretrained(tmp_path)
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(AdapterError, match="cannot read an adapter"):
        Adapter.from_pretrained(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_named(adapter, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match="cannot write the adapter"):
        adapter.save_pretrained(tmp_path / "file")


def test_a_failed_write_leaves_the_old_adapter_whole(adapter, models, text_words, tmp_path, monkeypatch):
    adapter.save_pretrained(tmp_path)
    paper = Adapter.fit(*models, preset="paper", words=text_words)

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("promptfuse.adapters.files.os.fsync", full_disk)
    with pytest.raises(AdapterError, match="No space left"):
        paper.save_pretrained(tmp_path)
    assert Adapter.from_pretrained(tmp_path).report() == adapter.report()
    assert len(list(tmp_path.iterdir())) == 2


def test_writers_at_once_leave_a_whole_adapter(adapter, models, text_words, tmp_path):
    adapters = [adapter, Adapter.fit(*models, preset="paper", words=text_words)]

    def write(k):
        for _ in range(4):
            adapters[k].save_pretrained(tmp_path / str(k % 1))

    threads = [threading.Thread(target=write, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Adapter.from_pretrained(tmp_path / "0").report().preset in ("default", "paper")


def test_a_stale_adapter_is_not_used(models, adapter):
    moved = type(models[1])("moved", models[1].tokenizer, models[1].embedding_table + 1e-3)
    with pytest.raises(AdapterError, match=r"moved; fit it again"):
        adapter.verify(models[0], moved)
    with pytest.raises(AdapterError, match="fit it again"):
        adapter.verify(models[1], models[0])
