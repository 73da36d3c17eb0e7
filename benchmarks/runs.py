"""Photos of a data set, and runs over them that go on where they were stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_photos(flickr8k: Path, split: str, start: int, count: int) -> list[dict[str, Any]]:
    """Rows ``start`` to ``start + count`` of a split."""
    rows = json.loads((flickr8k / "captions.json").read_text(encoding="utf-8"))
    return [row for row in rows if row["split"] == split][start : start + count]


def run_method(
    name: str,
    rows: list[dict[str, Any]],
    folder: Path,
    caption: Callable[[int, Path], dict[str, Any]],
    images: Path,
) -> list[dict[str, Any]]:
    """Caption all photos, resuming behind what the file holds."""
    path = folder / f"{name}.jsonl"
    # A line without its end was cut off by a kill: it is made again.
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    lines = [line for line in lines if line.endswith("\n")]
    path.write_text("".join(lines), encoding="utf-8")
    done = [json.loads(line) for line in lines]
    with path.open("a", encoding="utf-8") as stream:
        for index in range(len(done), len(rows)):
            record = {"image": rows[index]["file"], **caption(index, images / rows[index]["file"])}
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            done.append(record)
            if (index + 1) % 20 == 0:
                print(f"{name}: {index + 1}/{len(rows)}  {record['text']}", flush=True)
    return done[: len(rows)]


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run, or stop if the folder holds captions made with others."""
    path = folder / "settings.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise SystemExit(f"{folder} holds captions made with other settings; give another --out")
    path.write_text(json.dumps(settings, indent=2), encoding="utf-8")


def report(table: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    """Write the table to ``summary.json`` and print it."""
    (folder / "summary.json").write_text(json.dumps(table, indent=2), encoding="utf-8")
    for row in table:
        cells = (
            f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
        )
        print(json.dumps(row) if as_json else "  ".join(cells))
