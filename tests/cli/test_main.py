import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tests.refusals import refused

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
DOG = str(PHOTOS / "golden_retriever.jpg")
QUICK = ["--steps", "3", "--beams", "2", "--candidates", "4"]


def bomb(path: Path) -> None:
    """A PNG whose header claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


class TestBadInput:
    def test_missing_file(self, promptfuse):
        refused(promptfuse("caption", "no/such/photo.jpg"), "no/such/photo.jpg", "no such file")

    def test_text_file_named_jpg(self, promptfuse, tmp_path):
        path = tmp_path / "notes.jpg"
        path.write_text("not a photo at all")
        refused(promptfuse("caption", str(path)), "notes.jpg", "not an image")

    def test_truncated_jpeg(self, promptfuse, tmp_path):
        path = tmp_path / "half.jpg"
        data = Path(DOG).read_bytes()
        path.write_bytes(data[: len(data) // 2])
        refused(promptfuse("caption", str(path)), "half.jpg", "damaged or cut short")

    def test_one_pixel(self, promptfuse, tmp_path):
        path = tmp_path / "dot.png"
        Image.new("RGB", (1, 1)).save(path)
        refused(promptfuse("caption", str(path)), "dot.png", "1x1", "too small")

    def test_decompression_bomb(self, promptfuse, tmp_path):
        bomb(tmp_path / "bomb.png")
        refused(promptfuse("caption", str(tmp_path / "bomb.png")), "bomb.png", "megapixels")

    def test_unknown_sentiment(self, promptfuse):
        refused(promptfuse("caption", DOG, "--sentiment", "grumpy"), "grumpy", "positive, negative")

    def test_unknown_preset(self, promptfuse):
        refused(promptfuse("caption", DOG, "--models", "huge"), "huge", "mini, paper")

    def test_folder_without_a_tokenizer(self, promptfuse, tmp_path):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
        preset = tmp_path / "mine.yaml"
        preset.write_text(f"base: mini\nlm: {folder}\n")
        refused(promptfuse("caption", DOG, "--models", str(preset)), str(folder), "no tokenizer")

    def test_weight_that_is_no_number(self, promptfuse):
        refused(promptfuse("caption", DOG, "--weight", "image=heavy"), "heavy", "not a number")

    @pytest.mark.parametrize("weight", ["image=nan", "image=inf", "image=0", "fluency=-1"])
    def test_weight_that_cannot_weigh(self, promptfuse, weight):
        refused(promptfuse("caption", DOG, "--weight", weight), "weight of")

    def test_weight_without_a_value(self, promptfuse):
        refused(promptfuse("caption", DOG, "--weight", "image"), "TERM=VALUE")

    def test_weight_that_drowns_the_others(self, promptfuse):
        refused(promptfuse("caption", DOG, "--weight", "image=1e308"), "weight of image", "1e+308")

    def test_unknown_device(self, promptfuse):
        refused(promptfuse("caption", DOG, "--device", "abacus"), "abacus", "give cpu")

    def test_a_trace_does_not_replace_a_photo(self, promptfuse, tmp_path):
        photo = tmp_path / "dog.html"
        photo.write_bytes(Path(DOG).read_bytes())
        refused(promptfuse("caption", str(photo), "--trace", str(photo)), "one of the input files")
        assert photo.read_bytes() == Path(DOG).read_bytes()
        refused(promptfuse("caption", DOG, "--trace", str(tmp_path / "x.pdf")), "must end in .html")

    def test_trace_onto_a_folder_or_a_device(self, promptfuse, tmp_path):
        refused(promptfuse("caption", DOG, "--trace", str(tmp_path)), str(tmp_path), "regular file")
        refused(promptfuse("caption", DOG, "--trace", "/dev/null"), "/dev/null", "regular file")
        assert not Path("/dev/null").is_file()

    def test_unknown_term(self, promptfuse):
        refused(promptfuse("caption", DOG, "--weight", "beauty=1"), "beauty", "fluency, image")

    def test_zero_steps(self, promptfuse):
        refused(promptfuse("caption", DOG, "--steps", "0"), "--steps 0", "must be at least 1")

    def test_steps_that_are_no_number(self, promptfuse):
        refused(promptfuse("caption", DOG, "--steps", "many"), "many")

    def test_unknown_option(self, promptfuse):
        refused(promptfuse("caption", DOG, "--fast"), "--fast")

    def test_unreachable_hub(self, promptfuse, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        refused(promptfuse("caption", DOG, "--models", "paper"), "gpt2-medium", "HF_HUB_OFFLINE")

    def test_trace_into_a_missing_folder(self, promptfuse, tmp_path):
        refused(promptfuse("caption", DOG, "--trace", str(tmp_path / "no" / "page.html")), "does not exist")

    def test_prefix_that_does_not_fit(self, promptfuse):
        refused(promptfuse("caption", DOG, "--prefix", "supercalifragilistic" * 40), "tokens", "shorten")


@pytest.mark.slow
def test_one_bad_photo_loses_nothing_of_the_others(promptfuse, tmp_path):
    code, out, err = promptfuse("caption", "missing.jpg", DOG, *QUICK)
    assert code == 2
    assert out.startswith(DOG + "\t")
    assert err.count("\n") == 1
    assert "missing.jpg" in err


def test_json_lines(promptfuse):
    code, out, err = promptfuse("caption", DOG, str(PHOTOS / "cat.jpg"), "--json", "--seed", "3", *QUICK)
    assert code == 0
    assert err == ""
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["image"] for row in rows] == [DOG, str(PHOTOS / "cat.jpg")]
    for row in rows:
        assert row.keys() >= {
            "image", "text", "value", "terms", "models", "seed", "seconds", "exact_evaluations"
        }  # fmt: skip
        assert row["seed"] == 3
        assert row["terms"].keys() == {"fluency", "image"}
        assert row["value"] == pytest.approx(
            sum(row["weights"][key] * loss for key, loss in row["terms"].items())
        )
        assert 0 < row["exact_evaluations"] <= 4 + 2 * 8


@pytest.mark.slow
def test_weights_and_prefix_are_used(promptfuse):
    code, out, _ = promptfuse(
        "caption", DOG, "--json", "--weight", "image=3.5", "--prefix", "A photo of", *QUICK
    )
    row = json.loads(out)
    assert code == 0
    assert row["weights"] == {"fluency": 1.0, "image": 3.5}
    assert row["text"].startswith("A photo of")


@pytest.mark.slow
def test_words_that_captions_must_and_must_not_have(promptfuse):
    plain = json.loads(promptfuse("caption", DOG, "--json", *QUICK)[1])["text"].lower()
    options = ["--banned", plain.split()[1], "--max-words", "3", "--json", *QUICK]
    code, out, err = promptfuse("caption", DOG, *options)
    row = json.loads(out)
    assert (code, err) == (0, "")
    words = row["text"].lower().rstrip(".").split()
    assert plain.split()[1] not in words
    assert len(words) <= 3
    code, out, err = promptfuse("caption", DOG, "--required", "xylophone,zebra", "--json", *QUICK)
    row = json.loads(out)
    assert (code, row["satisfied"]) == (1, False)
    assert "xylophone" in row["missing"]
    assert "required 'xylophone'" in err
    refused(promptfuse("caption", DOG, "--max-words", "0"), "--max-words 0")


@pytest.mark.slow
def test_trace_shows_the_search(promptfuse, tmp_path):
    page = tmp_path / "trace.html"
    code, out, _ = promptfuse("caption", DOG, "--sentiment", "positive", "--trace", str(page), *QUICK)
    html = page.read_text(encoding="utf-8")
    assert code == 0
    assert out.strip().split("\t")[1] in html
    assert html.count("<tr><td rowspan") == 3
    assert "data:image/jpeg;base64," in html
    assert "sentiment" in html
    assert list(tmp_path.iterdir()) == [page]


def test_models_lists_the_presets(promptfuse):
    code, out, _ = promptfuse("models", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {row["preset"] for row in rows} == {"mini", "paper", "smollm2"}
    assert {row["state"] for row in rows if row["preset"] == "mini"} == {"embedded"}


def test_the_package_can_be_run_as_a_module():
    words = [sys.executable, "-m", "promptfuse", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("promptfuse 0.")


def test_version_needs_no_torch():
    script = (
        "import sys; sys.argv = ['promptfuse', '--version']\n"
        "from promptfuse.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("promptfuse 0.")


@pytest.mark.slow
def test_installed_command_writes_only_captions_into_a_pipe():
    command = Path(sys.executable).parent / "promptfuse"
    if not command.exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run(
        [command, "caption", DOG, *QUICK],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


@pytest.mark.slow
def test_photos_in_flight_give_the_same_lines_in_the_same_order(promptfuse, tmp_path):
    photos = [str(path) for path in sorted(PHOTOS.glob("*.jpg"))[:3]]
    photos.insert(1, str(tmp_path / "none.jpg"))
    one_by_one, together = (promptfuse("caption", *photos, *QUICK, "--in-flight", n) for n in ("1", "3"))
    assert together == one_by_one
    assert together[0] == 2
    assert together[1].count("\n") == 3
