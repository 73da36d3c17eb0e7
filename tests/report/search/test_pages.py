"""Pages about searches whose course is known, since it is written down here."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import escape

from promptfuse.objectives.continuation import Continuation
from promptfuse.report.lettering import text_width
from promptfuse.report.plots import MANY, Frame, Point, Series, bar_plot, line_plot, ticks
from promptfuse.report.search.changes import around, changed, compared
from promptfuse.report.search.pareto import pareto_plots
from promptfuse.report.search.search_page import write_search_page
from promptfuse.report.search.steps import gains_plot, terms_plot
from promptfuse.report.search.tree import MOST_ROWS, beam_tree, build_tree, winning_path
from promptfuse.search import Hypothesis, Result
from tests.report.search.searches import result, text


@pytest.fixture
def grown() -> Result:
    """Two beams; the one that wins waited for a step, and ended as it stood."""
    a, b = text("a", 5), text("the", 6)
    cat, dog = text("a cat", 4, "a"), text("a dog", 4.5, "a")
    owl = text("the owl", 3, "the")  # made in step 2, gone on from after step 3 only
    end = text("the owl.", 2, "the owl", complete=True)
    return result([a, b], [cat, dog], [owl, cat], [dog], best=[a, cat, owl, end])


def test_the_way_leads_through_texts_that_waited(grown):
    rows = build_tree(grown)
    path = winning_path(rows)
    assert [node.item.text for node in path] == ["", "the", "the owl", "the owl."]
    assert [node.row for node in path] == [0, 1, 3, 4]
    # The text that ended stands behind the beams; the one that stayed is not changed.
    assert (path[-1].column, path[-1].complete) == (2, True)
    stayed = rows[3][1]
    assert stayed.kept
    assert stayed.parent is rows[2][0]
    assert [node.won for node in rows[2]] == [False, False]


def test_methods_that_begin_with_texts_of_their_own():
    first, second = text("x y", 4, "! !"), text("z y", 3, "? ?")
    last = text("z w", 2, "z y", complete=True)
    found = result([first, second], [last, first], best=[second, last])
    rows = build_tree(found)
    assert [node.item.text for node in rows[0]] == ["! !", "? ?"]
    assert [node.item.text for node in winning_path(rows)] == ["? ?", "z y", "z w"]
    assert rows[2][0].complete  # In its place among the beams, not once more behind them.
    assert len(rows[2]) == 2
    assert rows[2][1].kept


def test_long_searches_show_the_way_and_not_every_step():
    steps = [[text("w" * (index + 1), 2000 - index, "w" * index)] for index in range(1000)]
    found = result(*steps, best=[kept[0] for kept in steps])
    svg = beam_tree(found)
    shown = svg.count("<rect")
    assert 20 < shown <= MOST_ROWS + 2
    assert f"{1001 - shown} of 1000 steps are not shown" in svg
    # The way is whole: each text that is shown hangs on the one that is shown before it.
    assert svg.count('class="edge won"') == shown - 1
    assert "step 1000<" in svg


def test_stages_have_names(grown):
    assert "Polish" not in beam_tree(grown)
    staged = result(*([step.best] for step in grown.history), best=[s.best for s in grown.history],
                    stages=[1, 1, 2, 2])  # fmt: skip
    assert ">Polish</text>" in beam_tree(staged)


@pytest.mark.parametrize(
    ("parent", "child", "shown"),
    [
        ("", "A", "A"),
        ("a", "a dog", "dog"),
        ("a dog", "a doggy", "-gy"),
        ("a dog", "a dog.", "."),
        ("a dog", "a dog", "="),
        ("a red dog", "a blue dog", "blue"),
        ("a red dog", "a dog", "−red"),
        ("a dog", "a big dog", "big"),
        ("a b c d", "x b y d", "x … y"),
    ],
)
def test_what_changed(parent, child, shown):
    assert changed(parent, child) == shown


def around_change(parent: str, child: str, room: float) -> str:
    """What is seen of a change, with the new words in brackets."""
    pieces = around(compared(parent, child), room, 12)
    return "".join(f"[{piece.text}]" if piece.new else piece.text for piece in pieces)


LONG = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("parent", "child", "core", "cut"),
    [
        (LONG, LONG.replace("five", "V"), "three four[ V]", "…..…"),
        (LONG, LONG.replace("one", "I"), "[I] two three", "..…"),
        (LONG, LONG.replace("ten", "X"), "eight nine[ X]", "….."),
        (LONG, LONG.replace(" five", ""), "three four[ −five]", "…..…"),
        (LONG, f"{LONG}.", "eight nine ten[.]", "….."),
        ("a cat", "a dog", "a[ dog]", ".."),
        ("", "word" * 30, "[w][o][r][d][w]", "..…"),
        (
            "猫が窓のそばで静かに眠っている",
            "猫が窓のそばで静かに遊んでいる",
            "かに[遊][ん]",
            "…..",
        ),
    ],
)
def test_the_place_of_a_change_is_shown(parent, child, core, cut):
    found = around_change(parent, child, 190)
    assert core in found
    found = found.replace("[", "").replace("]", "")
    assert text_width(found, 12, True) <= 190 * 1.13
    assert (found[0] == "…", found[-1] == "…") == (cut[0] == "…", cut[-1] == "…")


def test_texts_cannot_write_html(tmp_path: Path):
    bad = text('<script>alert("1")</script> & more', 3, complete=True)
    found = result([bad], [bad], best=[bad, bad])
    page = tmp_path / "page.html"
    write_search_page(page, "<i>", found, settings="<b>: 1")
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;alert" in html
    assert "<i>:" not in html
    assert "&lt;b&gt;: 1" in html
    assert list(tmp_path.iterdir()) == [page]


def test_the_page_says_how_the_model_goes_on(tmp_path: Path):
    found = replace(
        result([text("a", 5)], best=[text("a", 5)]),
        continuations={"target": Continuation(" <on> the sea", (" on the beach.",), None)},
    )
    page = tmp_path / "page.html"
    write_search_page(page, "short", found)
    html = page.read_text(encoding="utf-8")
    said = "target: the model continues with ' <on> the sea', which does not match ' on the beach.'"
    assert escape(said) in html


def test_a_search_without_complete_texts_still_has_a_page(tmp_path: Path):
    found = result([text("a", 5)], best=[text("a", 5)])
    page = tmp_path / "page.html"
    write_search_page(page, "short", found)
    html = page.read_text(encoding="utf-8")
    assert "not complete" in html
    assert "Terms against each other" not in html


def test_terms_are_drawn_by_their_weights(grown):
    html = terms_plot(grown)
    assert "fluency x 1" in html
    assert "image x -2" in html
    assert f"image {1 / 2:.4f} x -2" in html
    assert "gain" in gains_plot(grown)


def test_the_front_knows_which_way_is_better():
    # The image's weight is negative: more of it is better, so both of the first are on the front.
    items = [text("a.", 4, complete=True), text("b.", 2, complete=True)]
    worse = Hypothesis("c.", (1,), None, 9, {"fluency": 4.5, "image": 0.2}, True, "")
    found = result([items[0]], [worse], [items[1]], best=[items[0], worse, items[1]])
    html = pareto_plots(found)
    front = re.findall(r'r="5" fill="#3f8f5b"><title>(\S+)', html)
    assert front == ["b."]  # Lower fluency loss and higher image loss than both others.
    assert sorted(re.findall(r'r="4" fill="#8b97a5"><title>(\S+)', html)) == ["a.", "c."]
    assert "image loss, higher is better" in html


def test_beams_far_from_all_complete_texts_do_not_squeeze_the_plot():
    done = [text(f"t{number}.", 2 + number / 10, complete=True) for number in range(5)]
    far, near = text("a", 40), text("a cat", 2.5, "a")
    html = pareto_plots(result(*([far, near] for _ in done), best=done))
    hollow = re.findall(r'r="2.5"[^>]*><title>(.*?)\n', html)
    assert hollow == ["a cat"]
    assert "1 beam is outside the plot" in html
    # Of few complete texts nothing is known of how far they reach.
    html = pareto_plots(result([far, near], best=done[:1]))
    assert sorted(re.findall(r'r="2.5"[^>]*><title>(.*?)\n', html)) == ["a", "a cat"]
    assert "outside the plot" not in html


def test_ticks_are_round():
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.28, 0.52, 4) == [0.3, 0.4, 0.5]
    assert ticks(1, 3, 8, whole=True) == [1, 2, 3]
    assert ticks(-7, 12, 4) == [-5, 0, 5, 10]
    assert ticks(0, 2500, 5) == [0, 500, 1000, 1500, 2000, 2500]


def test_points_lie_between_the_axes():
    points = [Point(1, -2.0), Point(4, 8.0)]
    frame = Frame(points, "step", "loss", width=200, height=100)
    assert (frame.x(1), frame.x(4)) == (44, 178)
    assert 10 < frame.y(8.0) < frame.y(-2.0) < 50
    alone = Frame([Point(1, 3.0)], "step", "loss")
    assert alone.left < alone.x(1) < alone.width - alone.right
    assert alone.top < alone.y(3.0) < alone.height - alone.bottom


def test_plots_say_what_they_show():
    series = Series("a <b>", "#123456", [Point(1, 1.0, "hover"), Point(2, 3.0)])
    html = line_plot("Heading", [series], "loss")
    for words in ("<h4>Heading</h4>", ">step</text>", ">loss</text>", "a &lt;b&gt;", "<title>hover</title>"):
        assert words in html
    assert line_plot("Heading", [Series("a", "#123456", [])], "loss") == ""
    assert bar_plot("Heading", series, "s").count("<rect") == 2
    many = Series("a", "#123456", [Point(index, 1.0) for index in range(MANY + 1)])
    assert "<rect" not in bar_plot("Heading", many, "s")
