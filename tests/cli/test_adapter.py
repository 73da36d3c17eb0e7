import json
import subprocess
import sys
from pathlib import Path

import pytest

from promptfuse.adapters import Adapter
from tests.refusals import refused

DOG = str(Path(__file__).parents[2] / "examples" / "photos" / "golden_retriever.jpg")


@pytest.fixture
def promptfuse(promptfuse, monkeypatch, tmp_path):
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path / "cache"))
    return lambda *arguments: promptfuse("adapter", *arguments)


@pytest.fixture
def pair(checkpoint):
    return checkpoint("gpt2"), checkpoint("roberta")


def test_fit_writes_into_the_cache_and_info_finds_it(promptfuse, pair, tmp_path):
    code, out, err = promptfuse("fit", *pair)
    assert (code, err) == (0, "")
    assert "sub-tokens" in out
    (folder,) = (tmp_path / "cache" / "adapters").iterdir()
    assert out.splitlines()[-1] == f"Folder: {folder}"
    assert promptfuse("info", *pair) == (0, out, "")
    assert promptfuse("info", folder) == (0, out, "")


def test_fit_writes_where_it_is_told_and_on_the_words_it_is_given(promptfuse, pair, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("A brown dog and a white cat\n" * 2, encoding="utf-8")
    code, out, _ = promptfuse(
        "fit", *pair, "--preset", "paper", "--words", words, "--out", tmp_path / "mine", "--json"
    )
    row = json.loads(out)
    assert code == 0
    assert row["preset"] == "paper"
    assert sum(count for _, _, count in row["words"]) + row["skipped"] == 7
    saved = json.loads(json.dumps(Adapter.from_pretrained(tmp_path / "mine").report().to_json()))
    assert {key: row[key] for key in saved} == saved
    assert not (tmp_path / "cache").exists()
    assert json.loads(promptfuse("info", tmp_path / "mine", "--json")[1]) == row


def test_evaluate_prints_the_table_as_json(promptfuse, pair):
    code, out, err = promptfuse("evaluate", *pair, "--prompts", "1", "--candidates", "20", "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert rows.keys() >= {"lm-prior", "random", "t-product-paper", "t-product-default", "lexical", "oracle"}
    assert all(row.keys() >= {"spearman", "recall_10_at_64", "recall_10_at_256"} for row in rows.values())
    assert rows["oracle"]["spearman"] == pytest.approx(1)


def test_evaluate_measures_further_transports(promptfuse, pair):
    code, out, _ = promptfuse(
        "evaluate", *pair, "--prompts", "1", "--candidates", "20", "--json",
        "--transport", "effects", "--transport", "similarities", "--transport", "lexical",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert "probe" not in found["effects"]
    assert found["similarities"]["probe"] == "tempered"


def test_evaluate_by_a_photo_with_a_plot(promptfuse, checkpoint, tmp_path):
    plot = tmp_path / "table.png"
    code, out, err = promptfuse(
        "evaluate", checkpoint("gpt2"), checkpoint("clip"), "--image", DOG, "--prompts", "1",
        "--candidates", "16", "--plot", plot,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.count("lexical-surrogate") == 4  # a row for each probe
    assert plot.exists()


def test_a_damaged_cache_costs_one_note(promptfuse, pair, tmp_path):
    promptfuse("fit", *pair)
    (maps,) = (tmp_path / "cache" / "adapters").glob("*/*.safetensors")
    maps.write_bytes(b"")
    refused(promptfuse("info", *pair), "damaged", "fit it again")
    code, _, err = promptfuse("evaluate", *pair, "--prompts", "1", "--candidates", "16")
    assert code == 0
    assert err.count("\n") == 1
    assert err.startswith("promptfuse: note: ")
    assert "damaged" in err
    assert promptfuse("info", *pair)[0] == 0


class TestBadInput:
    def test_an_unknown_model(self, promptfuse, pair):
        refused(promptfuse("fit", "./nowhere", pair[1]), "nowhere", "check the path")
        refused(promptfuse("info", "./nowhere", pair[1]), "nowhere", "check the path")
        refused(promptfuse("evaluate", "./nowhere", pair[1]), "nowhere", "check the path")

    def test_an_unknown_preset(self, promptfuse, pair):
        refused(promptfuse("fit", *pair, "--preset", "papr"), "papr", "default, paper")
        refused(promptfuse("info", *pair, "--preset", "papr"), "papr", "default, paper")

    def test_words_for_the_cache(self, promptfuse, pair, tmp_path):
        refused(promptfuse("fit", *pair, "--words", tmp_path / "words.txt"), "--words", "--out DIR")

    def test_words_that_are_not_there_or_no_text(self, promptfuse, pair, tmp_path):
        out = ("--out", tmp_path / "mine")
        refused(promptfuse("fit", *pair, "--words", tmp_path / "words.txt", *out), "words.txt", "UTF-8")
        (tmp_path / "words.txt").write_bytes(b"\xff\xfe\x00")
        refused(promptfuse("fit", *pair, "--words", tmp_path / "words.txt", *out), "words.txt", "UTF-8")
        (tmp_path / "words.txt").write_bytes(b"")
        refused(promptfuse("fit", *pair, "--words", tmp_path / "words.txt", *out), "no words")
        assert not (tmp_path / "mine").exists()

    def test_a_file_in_place_of_the_folder(self, promptfuse, pair, tmp_path):
        (tmp_path / "file").touch()
        refused(promptfuse("fit", *pair, "--out", tmp_path / "file"), "is a file")

    def test_nothing_cached(self, promptfuse, pair):
        refused(promptfuse("info", *pair), "promptfuse adapter fit", *pair)

    def test_no_adapter_in_the_folder(self, promptfuse, tmp_path):
        refused(promptfuse("info", tmp_path), "cannot read an adapter")

    def test_three_models(self, promptfuse):
        refused(promptfuse("info", "a", "b", "c"), "3 names", "two models")

    def test_numbers_that_are_too_small_or_none(self, promptfuse, pair):
        refused(promptfuse("evaluate", *pair, "--prompts", "0"), "--prompts 0", "at least 1")
        refused(promptfuse("evaluate", *pair, "--candidates", "3"), "--candidates 3", "at least 16")
        refused(promptfuse("evaluate", *pair, "--candidates", "many"), "many")
        refused(promptfuse("evaluate", *pair, "--transport", "effect"), "--transport effect", "effects")

    def test_models_in_the_wrong_place(self, promptfuse, pair):
        refused(promptfuse("evaluate", pair[1], pair[0]), "must be a causal LM")
        refused(promptfuse("evaluate", pair[0], pair[0]), "give an image-text model")

    def test_photos_for_a_classifier_and_photos_that_are_none(self, promptfuse, pair, checkpoint):
        refused(promptfuse("evaluate", *pair, "--image", DOG), "does not read photos")
        refused(
            promptfuse("evaluate", pair[0], checkpoint("clip"), "--image", "no.jpg"), "no.jpg", "no such file"
        )

    def test_a_plot_that_cannot_be_written(self, promptfuse, pair, tmp_path):
        refused(promptfuse("evaluate", *pair, "--plot", tmp_path / "no" / "a.png"), "does not exist")
        refused(promptfuse("evaluate", *pair, "--plot", tmp_path / "a.txt"), "a.txt", ".png")

    def test_a_device_that_is_none(self, promptfuse, pair):
        refused(promptfuse("fit", *pair, "--device", "toaster"), "toaster", "try cpu")


def test_help_needs_no_torch():
    script = (
        "import sys; sys.argv = ['promptfuse', 'adapter', '--help']\n"
        "from promptfuse.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("fit", "info", "evaluate"):
        assert command in done.stdout
