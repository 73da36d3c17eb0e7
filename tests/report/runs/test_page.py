from __future__ import annotations

import base64
import html
import io
import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import pytest
from markupsafe import escape
from PIL import Image

from promptfuse.errors import ConfigError
from promptfuse.report.document import FOLDER, static
from promptfuse.report.runs import compare, load_runs, measure_runs
from promptfuse.report.runs.gallery import begin_thumbnails
from promptfuse.report.runs.page import write_report
from promptfuse.report.runs.thumbnails import Thumbnails

BAD = '<script>alert("1")</script> & <!-- <b>'
FAILED = {"text": None, "error": f"{BAD} why", "terms": {}, "weights": {}, "value": None}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NODE = shutil.which("node")


@pytest.fixture
def page(tmp_path):
    """Write a page about runs and read it."""

    def write(*folders: Path, limit: int = 100, photos: bool = True, **options) -> str:
        comparison = compare(load_runs(folders))
        pictures = begin_thumbnails(comparison, limit) if photos else None
        path = tmp_path / "report.html"
        write_report(path, measure_runs(comparison, **options), photos=pictures, limit=limit)
        return path.read_text(encoding="utf-8")

    return write


class Tables(HTMLParser):
    """The text of each row of each table, by the table's caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self.kinds: dict[tuple[str, str], list[str]] = {}
        self.at = SimpleNamespace(caption=None, rows=[], inside=None)
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.at.caption, self.at.rows = "", []
        if tag == "tr":
            self.at.rows.append([])
        if tag in ("td", "th"):
            self.at.rows[-1].append("")
            kind = dict(attributes).get("class")
            if kind:
                self.kinds.setdefault((self.at.caption, kind), []).append(
                    f"{len(self.at.rows) - 1},{len(self.at.rows[-1]) - 1}"
                )
        if tag in ("td", "th", "caption", "b", "small"):
            self.at.inside = tag

    def handle_endtag(self, tag):
        if tag == "table":
            self.found[self.at.caption] = self.at.rows
            self.at.rows = []

    def handle_data(self, data):
        if self.at.inside == "caption" and not self.at.rows:
            self.at.caption += data
        elif self.at.rows and self.at.rows[-1]:
            cell = self.at.rows[-1][-1]
            self.at.rows[-1][-1] = f"{cell} {data}".strip()


def data_of(text: str, name: str = "data"):
    """What the gallery's script reads."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)
    return json.loads(found[1])


def test_tables_have_the_numbers(make_run, page):
    folders = [make_run("one", off=0), make_run("two", off=4)]
    found = Tables(page(*folders))
    measured = measure_runs(compare(load_runs(folders)))
    head, *rows = found.found["Agreement with references"]
    assert head == ["run", "BLEU-1 ↑", "BLEU-2 ↑", "BLEU-3 ↑", "BLEU-4 ↑", "ROUGE-L ↑", "CIDEr-D ↑"]
    assert [row[0] for row in rows] == ["one", "two"]
    for run, row in enumerate(rows):
        for name, cell in zip(("bleu_1", "bleu_4", "cider_d"), (row[1], row[4], row[6]), strict=True):
            score = measured.score(run, name)
            shown = re.findall(r"\d+\.?\d*", cell)
            digits = len(shown[0].partition(".")[2])
            assert shown[0] == f"{score.value:.{digits}f}"
            if score.low != score.high:
                assert shown[1:] == [f"{score.low:.{digits}f}", f"{score.high:.{digits}f}"]
    # The first run says what people wrote.
    assert found.kinds["Agreement with references", "best"] == [f"1,{n}" for n in range(1, 7)]
    cost = found.found["Cost"]
    assert cost[0] == ["run", "seconds a photo ↓", "exact evaluations ↓", "photos failed"]
    assert cost[1][-1] == "0 of 12"


def test_runs_that_cannot_be_told_apart_are_ties(make_run, page):
    changed = {5: {"seconds": 0.9}}
    found = Tables(page(make_run("one"), make_run("two", lines=changed)))
    assert "1,1" in found.kinds["Cost", "best"]
    assert "2,1" in found.kinds["Cost", "tie"]


def test_texts_cannot_write_html(make_run, page, references):
    rows = [json.loads(line) for line in references.read_text().splitlines()]
    rows[1]["captions"].append(BAD)
    references.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = {"recipe": {"prefix": BAD}, "models": {BAD: {"name": BAD, "fingerprint": BAD}}}
    lines = {1: {"text": BAD}, 2: FAILED}
    folders = [make_run("one & <i>", lines=lines, manifest=manifest), make_run("two", off=1)]
    text = page(*folders)
    # Three scripts of the page's own, and two of data.
    assert len(re.findall("<script", text)) == 5
    assert "<!--" not in text
    assert "<i>" not in text.replace('<i class="dot"', "")
    parts = Tables(text)
    assert parts.found["Settings that differ"][1][1] == BAD
    photos = {photo[0]: photo for photo in data_of(text)["photos"]}
    assert photos["p1"][2][0][0] == BAD
    assert photos["p1"][1][-1] == BAD
    assert photos["p2"][2][0] == [None, f"{BAD} why"]
    assert escape(f"{BAD} why") in text


def test_the_page_needs_nothing_else(make_run, page):
    text = page(make_run("one"), make_run("two", off=2))
    for script in ("gallery.js", "points.js", "tables.js"):
        assert static(script) in text
    addresses = set(re.findall(r"https?://[^\s\"'<>`]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|@import|url\(|<iframe|\ssrc=", text.partition("<script")[0])


def test_the_gallery_has_numbers_of_each_caption(make_run, page):
    folders = [make_run("one"), make_run("two", off=4, lines={3: FAILED})]
    text = page(*folders)
    data = data_of(text)
    measured = measure_runs(compare(load_runs(folders)))
    assert [run["name"] for run in data["runs"]] == ["one", "two"]
    names = [metric["key"] for metric in data["metrics"]]
    assert [metric["key"] for metric in data["metrics"] if metric["shown"]] == [
        "cider_d",
        "objective",
        "image_similarity",
    ]
    place = measured.comparison.ids.index("p7")
    photo = next(photo for photo in data["photos"] if photo[0] == "p7")
    for run in (0, 1):
        for name in ("cider_d", "rouge_l", "objective", "terms.fluency", "seconds"):
            value = measured.columns[run][name].values[place]
            assert photo[2][run][1][names.index(name)] == pytest.approx(value, rel=1e-4, abs=1e-12)
    # A photo that failed in one run has, in the other, what its own line tells.
    lost = next(photo for photo in data["photos"] if photo[0] == "p3")
    assert lost[2][0][1][names.index("objective")] == pytest.approx(0.53 + 5.3)
    assert lost[2][0][1][names.index("cider_d")] is None


def test_thumbnails(make_run, page, photos):
    pictures = data_of(page(make_run("one")), "photos")
    assert len(pictures) == 12
    with Image.open(io.BytesIO(base64.b64decode(pictures[3]))) as image:
        assert image.size == (144, 96)
        with Image.open(photos[3]) as photo:
            wanted = photo.getpixel((150, 100))
        assert all(abs(a - b) < 12 for a, b in zip(image.getpixel((70, 50)), wanted, strict=True))


def test_thumbnails_of_all_kinds(tmp_path, photos):
    turned, clear, cut, large = (tmp_path / name for name in ("t.jpg", "c.png", "x.jpg", "l.jpg"))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200)).save(turned, exif=exif)
    Image.new("RGBA", (50, 60), (0, 0, 0, 0)).save(clear)
    cut.write_bytes(photos[0].read_bytes()[:400])
    Image.effect_noise((1600, 1200), 60).convert("RGB").save(large)
    given = [turned, clear, cut, tmp_path / "gone.jpg", large]
    with Thumbnails([str(path) for path in given], 96) as thumbnails:
        found = thumbnails.all()
    sizes = [Image.open(io.BytesIO(base64.b64decode(text))).size if text else None for text in found]
    assert sizes == [(64, 96), (50, 60), None, None, (96, 72)]
    white = Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB").getpixel((5, 5))
    assert min(white) > 250


def test_nobody_waits_for_photos_after_an_error(monkeypatch):
    made = []
    monkeypatch.setattr(
        "promptfuse.report.runs.thumbnails._thumbnail", lambda *given: made.append(given) or sleep(0.05)
    )
    with pytest.raises(ValueError, match="wrong"), Thumbnails(["photo.jpg"] * 1000):
        raise ValueError("wrong")
    assert len(made) < 100


def test_photos_that_are_gone_are_counted(make_run, page):
    text = page(make_run("one", lines={2: {"image": "gone.jpg"}}))
    assert "1 photo could not be read" in text
    assert data_of(text, "photos")[2] == ""


def test_without_photos_and_with_a_limit(make_run, page):
    text = page(make_run("one"), photos=False, limit=5)
    assert data_of(text, "photos") == []
    assert len(data_of(text)["photos"]) == 5
    assert "The first 5 photos; 7 more are left out." in text


def test_failures_have_reasons(make_run, page):
    text = page(make_run("one", lines={2: FAILED, 9: FAILED}), make_run("two"))
    part = text.partition('id="failures"')[2].partition("</section>")[0]
    assert "one: 2 of 12 photos" in part
    assert re.findall(r"<td>(p\d+)</td>", part) == ["p2", "p9"]
    assert "two:" not in part
    assert 'id="failures"' not in page(make_run("three"))


def test_warnings_and_notes_are_on_the_page(make_run, page):
    other = {"models": {"fluency": {"name": "other-lm", "fingerprint": "f2"}}}
    text = page(make_run("one"), make_run("two", manifest=other, numbers=range(6)))
    assert "different models as fluency" in text.partition("<h2>")[0]
    assert "6 common ones" in text.partition("<h2>")[0]
    assert "METEOR, SPICE</b>: a Java program" in text


def test_plots(make_run, page):
    text = page(make_run("one"), make_run("two", off=3), make_run("three", off=30))
    cost = text.partition('id="cost"')[2].partition("</section></section>")[0]
    assert "CIDEr-D against time" in cost
    assert "objective against time" in cost
    assert "image similarity and fluency loss" in text
    frame = json.loads(html.unescape(re.search(r'data-frame="([^"]*)"', text)[1]))
    assert (frame["across"], frame["up"]) == ("terms.fluency", "image_similarity")


def test_one_photo_of_one_run(make_run, page):
    text = page(make_run("one", numbers=[4]))
    assert "one on toys" in text
    assert len(data_of(text)["photos"]) == 1


def test_no_photo_captioned_by_all(make_run, page):
    text = page(make_run("one"), make_run("two", lines=dict.fromkeys(range(12), FAILED)))
    assert "there are no numbers" in text
    assert len(data_of(text)["photos"]) == 12


@pytest.mark.slow
def test_a_thousand_photos_stay_small(tmp_path, page):
    draw = random.Random(0)
    image = tmp_path / "noise.jpg"
    Image.effect_noise((640, 480), 40).convert("RGB").save(image, quality=90)
    folder = tmp_path / "run"
    folder.mkdir()
    words = "a the dog man child runs sits looks on in at grass wall water sky red".split()
    with (folder / "predictions.jsonl").open("w") as lines:
        for number in range(1000):
            text = " ".join(draw.choices(words, k=9))
            row = {"id": str(number), "image": str(image), "text": text, "terms": {"fluency": draw.random()}}
            lines.write(json.dumps({**row, "weights": {"fluency": 1.0}}) + "\n")
    text = page(folder, limit=1000, resamples=100)
    assert len(data_of(text, "photos")) == 1000
    assert len(text) < 15_000_000


def test_nothing_is_written_where_it_cannot_be(make_run, tmp_path):
    measured = measure_runs(compare(load_runs([make_run("one")])))
    with pytest.raises(ConfigError, match="folder does not exist"):
        write_report(tmp_path / "no" / "page.html", measured)
    with pytest.raises(ConfigError, match="not a regular file"):
        write_report(tmp_path, measured)


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize("name", ["gallery.js", "points.js", "tables.js"])
def test_scripts_can_be_parsed(name):
    path = FOLDER / "static" / name
    done = subprocess.run([NODE, "--check", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_views_in_a_browser(make_run, page, tmp_path):
    """The gallery sorted by a difference, filtered, and of some runs, by what the address says."""
    folders = [make_run("one", lines={1: {"text": BAD}}), make_run("two", off=4, lines={2: FAILED})]
    page(*folders)
    measured = measure_runs(compare(load_runs(folders)))
    ids = measured.comparison.ids

    def ids_at(view: str) -> tuple[list[str], str]:
        arguments = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        command = [CHROMIUM, *arguments.split(), f"--user-data-dir={tmp_path / 'profile'}"]
        command += [
            "--virtual-time-budget=3000",
            "--dump-dom",
            f"{(tmp_path / 'report.html').as_uri()}#{view}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"Chromium does not run here: {done.stderr[-200:]}")
        rows = done.stdout.partition('id="rows"')[2].partition('<div class="pager"')[0]
        return re.findall(r'class="photo-id">(p\d+)', rows), rows

    rouge = [columns["rouge_l"].values for columns in measured.columns]
    wanted = sorted(range(len(ids)), key=lambda place: (-(rouge[0][place] - rouge[1][place]), place))
    found, rows = ids_at("sort=rouge_l&run=0&minus=1&desc=1")
    assert found == [*(ids[place] for place in wanted), "p2"]
    assert 'class="badge">ROUGE-L +' in rows
    assert "&lt;script&gt;" in rows
    found, rows = ids_at("q=boat&hide=1&refs=0")
    assert found == ["p3", "p8"]
    assert rows.count('class="whose"') == 2
    assert "references" not in rows
