"""What a result shows: its best texts, a table for pandas, a card for notebooks."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import promptfuse as pf

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg"


@pytest.fixture(scope="module")
def result():
    return pf.caption(PHOTO, effort="fast")


def test_top_gives_different_complete_texts_best_first(result):
    top = result.top(3)
    assert top[0].text == result.text
    assert 1 < len(top) <= 3
    assert len({item.text for item in top}) == len(top)
    assert all(item.complete for item in top)
    assert [item.value for item in top] == sorted(item.value for item in top)
    assert result.top(1) == top[:1]


def test_a_table_has_a_row_for_each_step(result):
    pytest.importorskip("pandas")
    table = result.to_pandas()
    assert list(table.step) == [step.number for step in result.history]
    assert list(table.text) == [step.best.text for step in result.history]
    assert {"value", "fluency", "image", "exact_evaluations", "seconds"} < set(table.columns)


def test_without_pandas_the_error_says_what_to_install(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(pf.ConfigError, match="pip install pandas"):
        result.to_pandas()


def test_the_card_escapes_texts(result):
    card = replace(result, text="<b>a & b</b>")._repr_html_()
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in card
    for name in result.terms:
        assert f"<td>{name}</td>" in card


@pytest.mark.slow
def test_progress_is_shown_when_asked_for(result, capsys):
    few = {"steps": 2, "beams": 1, "candidates": 2}
    photos = [PHOTO, PHOTO.with_name("horses.jpg")]
    seen = []
    shown = pf.caption_many(photos, verbose=True, on_outcome=lambda number, _: seen.append(number), **few)
    assert sorted(seen) == [0, 1]
    assert "2/2" in capsys.readouterr().err
    assert [one.text for one in shown] == [one.text for one in pf.caption_many(photos, **few)]
    assert capsys.readouterr().err == ""
    objective = pf.Captioner().objective(PHOTO)
    found = [
        pf.optimize(objective, pf.AutoDAN(4), steps=2, complete=False, verbose=verbose)
        for verbose in (True, False)
    ]
    assert "2/2" in capsys.readouterr().err
    assert found[0].text == found[1].text
