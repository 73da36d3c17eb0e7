"""Data sets by name: where the files of well-known ones lie, and those that users name themselves.

Names are looked for in this order: ``register``, ``datasets.yaml`` in the folder ``PROMPTFUSE_DATA``,
``datasets.yaml`` in the user's configuration folder, and those that are known, whose files lie in
``PROMPTFUSE_DATA``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from promptfuse._utils.addresses import exists, is_address, join
from promptfuse._utils.paths import expand_user
from promptfuse._utils.yaml_files import explain, nearest, read_yaml
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.hugging_face import is_hub_name

FILE = "datasets.yaml"
"""Where users name their data sets."""


class Entry(BaseModel):
    """How a named data set is read; `read_dataset` describes the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    format: str = "auto"
    images: str | None = None
    split: str | None = None
    about: str = ""

    def relative_to(self, folder: Path) -> Entry:
        """The same with whole paths; relative ones are below a folder."""
        places = {"source": self.source, "images": self.images}
        return self.model_copy(
            update={key: _absolute(path, folder) for key, path in places.items() if path is not None}
        )


@dataclass(frozen=True)
class Known:
    """A well-known data set: its file, relative to the data folder, where it may lie, and its photos."""

    files: tuple[str, ...]
    format: str
    about: str
    images: tuple[str, ...] = ()


def _karpathy(name: str, folder: str, about: str) -> Known:
    file = f"dataset_{name}.json"
    places = (f"{folder}/{file}", f"karpathy/{file}", f"caption_datasets/{file}", file)
    return Known(places, "karpathy", about, (folder,))


def _coco(part: str, about: str) -> Known:
    file = f"captions_{part}.json"
    return Known(
        (f"coco/annotations/{file}", f"coco/{file}", f"annotations/{file}"), "coco", about, ("coco",)
    )


KNOWN: dict[str, Known] = {
    "coco-karpathy": _karpathy("coco", "coco", "COCO 2014, Karpathy's splits; 123,287 photos"),
    "flickr8k-karpathy": _karpathy("flickr8k", "flickr8k", "Flickr8k, Karpathy's splits; 8,000 photos"),
    "flickr30k-karpathy": _karpathy("flickr30k", "flickr30k", "Flickr30k, Karpathy's splits; 31,014 photos"),
    "coco-train2014": _coco("train2014", "COCO captions, train2014; 82,783 photos"),
    "coco-val2014": _coco("val2014", "COCO captions, val2014; 40,504 photos"),
    "coco-train2017": _coco("train2017", "COCO captions, train2017; 118,287 photos"),
    "coco-val2017": _coco("val2017", "COCO captions, val2017; 5,000 photos"),
    "nocaps-val": Known(
        ("nocaps/nocaps_val_4500_captions.json", "nocaps/annotations/nocaps_val_4500_captions.json"),
        "coco",
        "nocaps, validation; 4,500 photos",
        ("nocaps",),
    ),
    "nocaps-test": Known(
        ("nocaps/nocaps_test_image_info.json", "nocaps/annotations/nocaps_test_image_info.json"),
        "coco",
        "nocaps, test, without captions; 10,600 photos",
        ("nocaps",),
    ),
}
"""Well-known data sets, by name."""

_registered: dict[str, Entry] = {}


def register(
    name: str,
    source: str | os.PathLike[str],
    *,
    format: str = "auto",
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    about: str = "",
) -> None:
    """Give a data set a name for the rest of the process; a name that is there already is replaced.

    Args:
        name: without slashes, which would make it a path.
        source: a file, folder or address; a relative path is that of the working folder of now.
        format: ``karpathy``, ``coco``, ``table``, ``folder``, ``datasets`` or ``auto``.
        images: the folder of the photos, if it is not near the file.
        split: the one that is read if none is asked for.
        about: a few words for lists.

    Raises:
        ConfigError: if the name is empty or has a slash.
    """
    _registered[_check_name(name)] = Entry(
        source=os.fspath(source),
        format=format,
        images=None if images is None else os.fspath(images),
        split=split,
        about=about,
    ).relative_to(Path.cwd())


def data_root() -> str | None:
    """The folder or address of the data, ``PROMPTFUSE_DATA``; None if it is not set."""
    root = os.environ.get("PROMPTFUSE_DATA", "").strip()
    return root if not root or is_address(root) else str(expand_user(root))


def user_file() -> Path:
    """The user's own ``datasets.yaml``, whether it is there or not."""
    return Path(platformdirs.user_config_dir("promptfuse")) / FILE


def yaml_files() -> list[Path]:
    """The files in which users name data sets, those that exist, the first of them wins."""
    root = data_root()
    files = [] if not root or is_address(root) else [Path(root) / FILE]
    return [path for path in (*files, user_file()) if path.is_file()]


def user_entries() -> dict[str, Entry]:
    """What users have named: by ``register``, else by their files.

    Raises:
        ConfigError: if a file is not as it should be.
    """
    found: dict[str, Entry] = {}
    for path in reversed(yaml_files()):
        found.update(_from_yaml(path))
    return found | _registered


def registered() -> list[str]:
    """All names, sorted.

    Raises:
        ConfigError: if a file of the user's is not as it should be.
    """
    return sorted({*KNOWN, *user_entries()})


@dataclass(frozen=True)
class Listed:
    """A name, and what is known of it.

    Attributes:
        name: as `read_dataset` takes it.
        source: where its file or folder is; None if it was not found.
        state: ``found``, or why it is not.
        about: a few words.
    """

    name: str
    source: str | None
    state: str
    about: str


def list_names() -> list[Listed]:
    """All names, sorted, with what is there of them.

    Raises:
        ConfigError: if a file of the user's is not as it should be, or an address cannot be reached.
    """
    users, root = user_entries(), data_root()
    rows = []
    for name in registered():
        if name in users:
            entry = users[name]
            there = _is_there(entry.source)
            rows.append(Listed(name, entry.source, "found" if there else "missing", entry.about))
            continue
        known = KNOWN[name]
        source = next((path for path in _below(root, known.files) if _is_there(path)), None) if root else None
        state = "found" if source else "missing" if root else "PROMPTFUSE_DATA is not set"
        rows.append(Listed(name, source, state, known.about))
    return rows


def find_name(name: str) -> Entry:
    """How the data set of a name is read.

    Raises:
        ConfigError: if there is no such name, or its files are missing.
    """
    users = user_entries()
    if name in users:
        return users[name]
    if name in KNOWN:
        return _known(name, KNOWN[name])
    if "/" in name or "\\" in name or Path(name).suffix:
        raise ConfigError(f"{name}: no such file or folder; check the path")
    raise ConfigError(f"{name}: no such file, folder or name of a data set; {nearest(name, registered())}")


def _known(name: str, known: Known) -> Entry:
    root = data_root()
    if not root:
        raise ConfigError(
            f"{name}: set PROMPTFUSE_DATA to the folder that has {known.files[0]}, or give the file's path"
        )
    source = next((path for path in _below(root, known.files) if _is_there(path)), None)
    if source is None:
        raise ConfigError(
            f"{name}: PROMPTFUSE_DATA={root} does not contain {', '.join(known.files)}; put the file there, "
            "or give its path"
        )
    images = next((path for path in _below(root, known.images) if _is_there(path)), None)
    return Entry(source=source, format=known.format, images=images, about=known.about)


def _below(root: str, relatives: tuple[str, ...]) -> Iterator[str]:
    for relative in relatives:
        yield join(root, relative) if is_address(root) else str(Path(root) / relative)


def _is_there(path: str) -> bool:
    if is_address(path):
        return exists(path, ConfigError)
    return is_hub_name(path) or Path(path).exists()


def _from_yaml(path: Path) -> dict[str, Entry]:
    found = {}
    for name, value in read_yaml(path, "my-photos: folder/of/photos").items():
        if isinstance(value, str):
            value = {"source": value}
        if not isinstance(value, dict) or not value.get("source"):
            raise ConfigError(f"{path}: {name}: expected a path, or fields with 'source'; write {name}: PATH")
        try:
            entry = Entry.model_validate({key: text for key, text in value.items() if text is not None})
        except ValidationError as error:
            raise ConfigError(f"{path}: {name}: {explain(error, Entry)}") from None
        found[_check_name(name, f"{path}: ")] = entry.relative_to(path.parent)
    return found


def _absolute(path: str, folder: Path) -> str:
    if is_address(path) or is_hub_name(path):
        return path
    return os.path.abspath(Path(folder, expand_user(path)))  # noqa: PTH100


def _check_name(name: str, where: str = "") -> str:
    if not name.strip() or "/" in name or "\\" in name:
        raise ConfigError(f"{where}{name!r} cannot name a data set; give a name without slashes")
    return name
