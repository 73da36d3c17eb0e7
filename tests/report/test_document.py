"""What all pages share: escaping, single files, layout of templates."""

from __future__ import annotations

import json
import re

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from promptfuse.report.document import FOLDER, Key, bar, counted, render, static, write_document

BAD = "</script><script>alert('1')</script> & <!-- \"x\" {{ 7 * 7 }}"


def test_values_are_escaped_and_markup_is_not() -> None:
    series = {"heading": BAD, "series": [], "y_label": Markup("<i>loss</i>")}
    with pytest.raises(UndefinedError):  # A template never shows nothing for a value that is missing.
        render("values.html", heading=BAD)
    key = type(
        "Series", (), {"key": Key(BAD, BAD), "points": [type("Point", (), {"x": 1, "y": 2, "hover": BAD})]}
    )
    html = render("values.html", **{**series, "series": [key]})
    assert "<script" not in html
    assert "<i>loss</i>" in html
    assert "{{ 7 * 7 }}" in html.unescape()
    assert html.unescape().count(BAD) == 4


def test_data_cannot_end_its_script() -> None:
    gallery = {"note": BAD, "data": {"text": BAD}, "pictures": [BAD]}
    html = render("gallery.html", gallery=gallery)
    scripts = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', html, re.S)
    assert {name: json.loads(text) for name, text in scripts} == {"data": {"text": BAD}, "photos": [BAD]}
    assert html.count("<script") == html.count("</script>") == 2


def test_line_breaks_of_templates_stay_out_of_pages(tmp_path) -> None:
    path = tmp_path / "page.html"
    write_document(path, "base.html", title="two\nlines")
    html = path.read_text(encoding="utf-8")
    assert html.startswith('<!doctype html><html lang="en">')
    assert "<h1>two\nlines</h1>" in html
    assert str(static("page.css")) in html


def test_style_sheets_and_scripts_cannot_end_their_element() -> None:
    for path in (FOLDER / "static").iterdir():
        assert not re.search(r"</(script|style)|<!--", static(path.name)), path


def test_bars_shrink_where_they_are_too_wide() -> None:
    widths = [width for width, _, _ in bar({"a": 100.0, "b": 300.0}, {"a": 1.0, "b": 1.0}, widest=400)]
    assert widths == pytest.approx([100, 300])
    assert [width for width, _, _ in bar({"a": -1.0}, {"a": 2.0})] == [0]
    assert (counted(1, "photo"), counted(2000, "search")) == ("1 photo", "2,000 searches")
