"""Where things are on the pages: no text over another, none too small to read, nothing wider than a phone."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from promptfuse.evaluation.metrics import Score
from promptfuse.report.document import static
from promptfuse.report.lettering import shorten, text_width
from promptfuse.report.plots import LETTERS, Point, Series, bar_plot, line_plot
from promptfuse.report.runs.plots import Mark, scatter
from promptfuse.report.search.page import Card, write_page
from promptfuse.report.search.pareto import pareto_plots
from promptfuse.report.search.search_page import write_search_page
from promptfuse.report.search.steps import step_plots
from promptfuse.report.search.tree import DIGITS, beam_tree
from promptfuse.search import Hypothesis
from tests.report.search.searches import result, text

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SENTENCE = "A dog is driver to and it looks at the sea while two children play football"
NARROWEST_PLOT, WIDEST_PLOT = 262, 620
"""Pixels: on a screen of 320, and where the page is widest."""

Box = tuple[float, float, float, float]


def svgs(html: str, kind: str) -> list[ElementTree.Element]:
    """The plots or trees of a page."""
    found = re.findall(rf'<svg class="{kind}".*?</svg>(?=<p class="legend"|</div>)', html, re.S)
    return [ElementTree.fromstring(one) for one in found]


def words(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def texts_of(plot: ElementTree.Element) -> list[tuple[str, Box]]:
    """The texts of a plot with their boxes, where it is narrowest."""
    found = []
    for one in plot.iter("text"):
        assert "transform" not in one.attrib
        wide = text_width(words(one), LETTERS)
        x, y = float(one.get("x", 0)), float(one.get("y", 0))
        left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[one.get("text-anchor", "start")]
        found.append((words(one), (left, y - 0.76 * LETTERS, left + wide, y + 0.22 * LETTERS)))
    return found


def check(plot: ElementTree.Element) -> None:
    """No text of a plot is over another one or over the edge."""
    _, _, width, height = (float(part) for part in plot.get("viewBox", "").split())
    boxes = texts_of(plot)
    for name, (left, top, right, bottom) in boxes:
        assert left >= -0.6, name
        assert right <= width + 0.6, name
        assert top >= 0, name
        assert bottom <= height, name
    for (name, one), (other_name, other) in combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (name, other_name)


def test_letters_take_no_more_room_than_is_reckoned_with() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from PIL import ImageFont

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    printable = "".join(map(chr, range(33, 127))) + "äéß…✓−"
    for name, bold in (("DejaVuSans.ttf", False), ("DejaVuSans-Bold.ttf", True)):
        font = ImageFont.truetype(str(fonts / name), 100)
        for written in (SENTENCE, printable, "0.123456", "WWW", "illicit", "lm-proposals_v2"):
            wide = font.getlength(written)
            assert wide <= text_width(written, 100, bold) <= 1.6 * wide, (name, written)


def test_shortened_texts_fit() -> None:
    for room in (30, 90, 200):
        for written in (SENTENCE, "猫" * 40, "🐕" * 20, "W" * 50):
            short = shorten(written, room, 12)
            assert text_width(short, 12) <= room
            assert short.endswith("…")
            assert written.startswith(short[:-1])
    assert shorten("short", 200, 12) == "short"


class TestTree:
    """Numbers and words in the tree."""

    def edits(self, beams: int = 3, value: float = 1234.5678) -> str:
        """A search by swaps, each step's best text being complete."""
        before, steps, best = SENTENCE, [], []
        draw = random.Random(0)
        for number in range(6):
            parts = before.split()
            parts[draw.randrange(4)] = f"word{number}"
            items = [
                text(" ".join([*parts, *(["x"] * column)]), value + column, before, complete=column == 0)
                for column in range(beams)
            ]
            steps.append(items)
            best.append(items[0])
            before = items[0].text
        return beam_tree(result(*steps, best=best))

    @pytest.mark.parametrize("beams", [1, 3, 8])
    @pytest.mark.parametrize("value", [0.5, 1234.5678, -98765.4321])
    def test_a_text_ends_before_its_value_begins(self, beams: int, value: float) -> None:
        (tree,) = svgs(self.edits(beams, value), "tree")
        chips = [group for group in tree.iter("g") if group.find("rect") is not None]
        assert len(chips) == 6 * beams + 1
        by_row: dict[float, list[Box]] = {}
        for chip in chips:
            rect, room = chip.find("rect"), chip.find("svg")
            assert rect is not None
            assert room is not None
            left, wide = float(rect.get("x", 0)), float(rect.get("width", 0))
            begin, end = float(room.get("x", 0)), float(room.get("x", 0)) + float(room.get("width", 0))
            label = room.find("text")
            assert label is not None
            # What is written fits, and a browser with a broader font cuts it off where its room ends.
            assert text_width(words(label), 12) <= end - begin
            written = chip.findall("text")[-1]
            assert written.get("class") == "value"
            edge = float(written.get("x", 0)) - text_width(words(written), DIGITS)
            assert left < begin < end <= edge + 0.6
            assert edge <= left + wide
            by_row.setdefault(float(rect.get("y", 0)), []).append((left, 0, left + wide, 0))
        for row in by_row.values():
            assert all(one[2] < other[0] for one, other in combinations(sorted(row), 2))

    def test_an_edit_at_the_beginning_is_seen_and_not_the_end(self) -> None:
        (tree,) = svgs(self.edits(), "tree")
        labels = [one for one in tree.iter("text") if one.get("class") == "whole"]
        assert len(labels) == 6
        for number, label in enumerate(labels):
            assert words(label).startswith("✓ ")
            assert [words(part).strip() for part in label.findall("tspan")] == [f"word{number}"]
            assert "football" not in words(label)

    def test_without_a_mouse_the_way_can_be_read_in_full(self) -> None:
        listed = self.edits().partition("<ol>")[2].partition("</ol>")[0]
        assert listed.count("<li>") == 6
        assert listed.count("children play football") == 6
        assert "<b> word0</b>" in listed or "<b>word0</b>" in listed


class TestPlots:
    """Texts of plots."""

    @pytest.mark.parametrize("steps", [2, 3, 17, 1000])
    @pytest.mark.parametrize("low", [0.0, 0.123, -12345.0, 1e-7])
    def test_by_step(self, steps: int, low: float) -> None:
        points = [Point(number, low * (1 + number / 7)) for number in range(1, steps + 1)]
        series = Series("a name", "#123456", points)
        for html in (line_plot("Heading", [series], "a label " * 12), bar_plot("Heading", series, "texts")):
            (plot,) = svgs(html, "plot")
            check(plot)
            assert len(texts_of(plot)) >= 4

    def test_names_of_terms_may_be_long(self) -> None:
        long = "a_name_of_a_term_that_is_as_long_as_a_whole_sentence_of_many_words"
        items = [
            Hypothesis(f"t{n}.", (1,), None, 1.0, {long: 1.0 + n, f"{long}2": 3.0 - n}, True, "")
            for n in range(3)
        ]
        found = result(*([item] for item in items), best=items)
        object.__setattr__(found, "terms", items[-1].terms)
        object.__setattr__(found, "weights", {long: 1.0, f"{long}2": 1.0})
        (plot,) = svgs(pareto_plots(found), "plot")
        check(plot)

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("log_x", [False, True])
    def test_names_of_many_runs_that_are_close(self, seed: int, log_x: bool) -> None:
        draw = random.Random(seed)

        def score(middle: float, spread: float) -> Score:
            value = draw.gauss(middle, spread)
            return Score("a metric", "higher", value, value - spread, value + spread, 8)

        names = [f"run-{number}" * draw.choice((1, 1, 2, 9)) for number in range(14)]
        spread = 10.0 ** draw.randint(-3, 0)
        marks = [Mark(name, "#123456", score(10, spread / 5), score(-3, spread)) for name in names]
        html = scatter("Heading", marks, "seconds a photo, fewer is better", "CIDEr-D", log_x=log_x)
        (plot,) = svgs(html, "plot")
        check(plot)
        # A name that has no place in the plot is in the legend.
        shown = [name for name, _ in texts_of(plot)]
        legend = html.partition('<p class="legend">')[2]
        for name in names:
            assert name in legend or shorten(name, 170, LETTERS) in shown
        assert sum(name in legend for name in names) < len(names)

    def test_one_step_is_told_rather_than_drawn(self) -> None:
        item = text("a.", 4, complete=True)
        found = result([item], best=[item])
        html = step_plots(found) + pareto_plots(found)
        assert "<svg" not in html
        for told in ("best beam</span></td><td>4<", "fluency x 1</span></td><td>4<", "<td>8<", "<td>0.5<"):
            assert told in html
        assert "objective, lower is better; only step 1 has values" in html

    def test_a_single_point_beside_lines_has_a_mark_and_its_value(self) -> None:
        line = Series("line", "#123456", [Point(1, 1.0), Point(2, 3.0), Point(3, 2.0)])
        alone = [Series(f"alone {n}", "#654321", [Point(3, 2.5 + n / 100)]) for n in range(4)]
        (plot,) = svgs(line_plot("Heading", [line, *alone], "loss"), "plot")
        check(plot)
        assert [circle.get("r") for circle in plot.iter("circle")][-4:] == ["4"] * 4
        shown = [name for name, _ in texts_of(plot)]
        assert {"2.5", "2.51"} <= set(shown)

    def test_letters_are_large_enough_wherever_a_plot_stands(self) -> None:
        usual = float(re.search(r"^svg text \{ font-size: ([\d.]+)px", static("page.css"), re.M)[1])  # type: ignore[index]
        rules = re.findall(
            r"@container \(max-width: (\d+)px\) \{ svg\.plot text \{ font-size: ([\d.]+)px",
            static("page.css"),
        )
        assert "container-type: inline-size" in static("page.css")
        (plot,) = svgs(line_plot("H", [Series("a", "#123456", [Point(1, 1.0), Point(2, 2.0)])], "y"), "plot")
        own = float(plot.get("viewBox", "").split()[2])
        assert max(float(size) for _, size in rules) == LETTERS
        for wide in range(NARROWEST_PLOT, WIDEST_PLOT):
            size = usual
            for most, given in rules:  # A later rule wins.
                if wide <= float(most):
                    size = float(given)
            least = 9 if wide < 300 else 10
            assert least - 0.3 <= size * wide / own <= 17, wide
        # And no rule makes some of them smaller again.
        for style in (static("page.css"), static("report.css")):
            for size in re.findall(r"font-size: ([\d.]+)px", style):
                assert float(size) >= 11


def test_a_card_of_a_search_that_ended_early_has_no_empty_headings(tmp_path: Path) -> None:
    found = result([text("a", 5)], best=[text("a", 5)])
    write_page(tmp_path / "page.html", "Title", [Card("one", Image.new("RGB", (9, 9)), [("plain", found)])])
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "not complete" in html
    assert "Complete texts" not in html
    assert "1 search in" in html


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_nothing_is_wider_than_a_phone(tmp_path: Path) -> None:
    """Three pages, all opened up, in a frame of 390 pixels: what sticks out, and whether texts overlap."""
    photo = Image.effect_noise((900, 600), 40).convert("RGB")
    photo.save(tmp_path / "photo.jpg")
    items = [
        text(f"{SENTENCE} {'x' * 60} {number}.", 60.0 - number, SENTENCE, complete=True)
        for number in range(5)
    ]
    found = result(*([item, items[0]] for item in items), best=items)
    write_search_page(tmp_path / "search.html", "a" * 80, found, [tmp_path / "photo.jpg"], "x: " + "y" * 200)
    write_page(
        tmp_path / "cards.html",
        "Title",
        [Card("a photo " * 20, photo, [("plain", found), ("b" * 70, found)])],
    )
    measure = """
      const d = document.querySelector('iframe').contentDocument;
      d.querySelectorAll('details').forEach((one) => { one.open = true; });
      const found = [];
      for (const svg of d.querySelectorAll('svg.plot, svg.tree')) {
        const boxes = [...svg.querySelectorAll('text')].filter((one) => one.textContent.trim())
          .map((one) => [one, one.getBoundingClientRect()]);
        boxes.forEach(([one, a], place) => boxes.slice(place + 1).forEach(([other, b]) => {
          if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
              Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
            found.push(one.textContent + '|' + other.textContent);
        }));
      }
      const page = d.documentElement;
      document.title = `wide ${page.scrollWidth - page.clientWidth} of ${page.clientWidth} over ${found}`;
    """
    for name in ("search", "cards"):
        frame = tmp_path / f"frame-{name}.html"
        frame.write_text(
            f'<iframe src="{name}.html" width="390" height="800" style="border:0"></iframe>'
            f"<script>addEventListener('load', () => {{ {measure} }});</script>"
        )
        arguments = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        done = subprocess.run(
            [str(CHROMIUM), *arguments.split(), f"--user-data-dir={tmp_path / 'profile'}",
             "--allow-file-access-from-files", "--virtual-time-budget=3000", "--dump-dom", frame.as_uri()],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"Chromium does not run here: {done.stderr[-200:]}")
        (told,) = re.findall(r"<title>(.*?)</title>", done.stdout)
        assert re.fullmatch(r"wide 0 of 3[79]\d over ", told), (name, told)
