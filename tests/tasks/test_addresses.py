"""Photos behind addresses: read as files are, with a bound on their size and on the time that they take."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import promptfuse as pf
from promptfuse._utils import addresses
from promptfuse.config import load_config
from promptfuse.models import images
from tests.refusals import refused

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "hot_air_balloon.jpg"
FEW = ["--steps", "2", "--beams", "2", "--candidates", "4"]
OPTIONS: dict[str, Any] = {"steps": 2, "beams": 2, "candidates": 4}


class Site(BaseHTTPRequestHandler):
    """Some pages, good and bad ones."""

    def do_GET(self) -> None:
        if self.headers.get("User-Agent", "").startswith("Python-urllib"):
            self.send_error(403)
        elif self.path.startswith("/photo.jpg"):
            self._send(PHOTO.read_bytes())
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/photo.jpg")
            self.end_headers()
        elif self.path == "/page.jpg":
            self._send(b"<html>Please log in.</html>")
        elif self.path == "/endless.jpg":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 16))
        elif self.path == "/slow.jpg":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
        elif self.path == "/silent.jpg":
            time.sleep(3)
        else:
            self.send_error(404)

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_captions_of_photos_on_the_web(site: str, promptfuse: Any, tmp_path: Path) -> None:
    expected = pf.caption(PHOTO, **OPTIONS)
    for path in ("photo.jpg", "photo.jpg?size=large", "moved"):
        found = pf.caption(f"{site}/{path}", **OPTIONS)
        assert (found.text, found.value) == (expected.text, expected.value)
    assert pf.caption_many([f"{site}/moved", PHOTO], **OPTIONS)[0].text == expected.text
    page = tmp_path / "page.html"
    code, out, err = promptfuse("caption", f"{site}/photo.jpg", PHOTO, "--json", "--trace", page, *FEW)
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["image"] for row in rows] == [f"{site}/photo.jpg", str(PHOTO)]
    assert [row["text"] for row in rows] == [expected.text] * 2
    assert page.read_text(encoding="utf-8").count("data:image/jpeg") == 2


def test_other_addresses_of_a_file(promptfuse: Any) -> None:
    pytest.importorskip("fsspec")
    code, out, err = promptfuse("caption", f"file://{PHOTO}", *FEW)
    assert (code, err) == (0, "")
    assert out.startswith(f"file://{PHOTO}\t")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("gone.jpg", ["404", "check the address"]),
        ("page.jpg", ["not an image"]),
        ("endless.jpg", ["more than 1,000,000 bytes", "smaller"]),
        ("slow.jpg", ["not finished after 0.5 seconds"]),
        ("silent.jpg", ["timed out", "check the address"]),
    ],
)
def test_a_failure_is_one_line_and_keeps_the_others(
    path: str, words: list[str], site: str, promptfuse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(images, "PATIENCE", 0.5)
    monkeypatch.setattr(addresses, "_SILENCE", 1)
    start = time.perf_counter()
    refused(promptfuse("caption", f"{site}/{path}", *FEW), f"{site}/{path}: ", *words)
    assert time.perf_counter() - start < 30
    code, out, err = promptfuse("caption", f"{site}/{path}", PHOTO, *FEW)
    assert (code, err.count("\n")) == (2, 1)
    assert out.startswith(f"{PHOTO}\t")


def test_a_server_that_is_not_there(promptfuse: Any) -> None:
    refused(promptfuse("caption", "http://127.0.0.1:9/a.jpg", *FEW), "127.0.0.1:9/a.jpg", "cannot be read")


def test_a_configuration_may_name_addresses(site: str, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(
        "models: {lm: mini-lm, clip: mini-clip}\n"
        "terms:\n"
        "  fluency: {kind: Fluency, model: lm}\n"
        f"  image: {{kind: ImageSimilarity, model: clip, image: ['{site}/photo.jpg', a.jpg]}}\n"
    )
    config = load_config(path)
    assert config.photos() == [f"{site}/photo.jpg", str(tmp_path / "a.jpg")]
