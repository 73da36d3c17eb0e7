import runpy
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_demo_writes_one_page_with_every_caption(tmp_path, monkeypatch, capsys):
    page = tmp_path / "demo.html"
    photo = EXAMPLES / "photos" / "horses.jpg"
    monkeypatch.setattr(sys, "argv", ["demo.py", str(photo), "--out", str(page)])
    runpy.run_path(str(EXAMPLES / "demo.py"), run_name="__main__")
    out = capsys.readouterr().out
    html = page.read_text(encoding="utf-8")
    captions = [
        line.split(None, 1)[1].rsplit("  (", 1)[0] for line in out.splitlines() if line.startswith("  ")
    ]
    assert len(captions) == 3
    for caption in captions:
        assert f"<q>{caption}</q>" in html
    assert html.count("<details>") == 3


def test_every_example_photo_has_a_licence():
    listed = (EXAMPLES / "photos" / "LICENSES.md").read_text(encoding="utf-8")
    photos = sorted(EXAMPLES.glob("photos/*.jpg"))
    assert len(photos) >= 6
    for photo in photos:
        assert photo.name in listed
