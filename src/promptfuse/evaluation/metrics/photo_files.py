"""Finding the photos of a folder by the ids of captions, without taking one for another."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from promptfuse._utils.addresses import is_address, join
from promptfuse._utils.paths import expand_user
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.folder import files_of, is_photo

_NUMBERED = re.compile(r"(?:[^\W\d_][^\W_]*[_-])*0*(\d+)", re.ASCII)
"""A name whose number is its last word, after words that begin with a letter: ``000000000070``, ``IMG_0070``
or ``COCO_val2014_000000000070``. In ``1001773457_577c3a7d70`` and ``2024-05-70`` no number stands alone."""

_Key = Callable[[str], str]


def find_photos(folder: str, ids: Iterable[str]) -> dict[str, str]:
    """The photo of each id, for those that have one.

    An id is the photo's path within the folder or its name, with or without its ending, or, if it is a whole
    number, the number that the name ends with: ``70`` is ``COCO_val2014_000000000070.jpg``. Part of a word or
    of a number is no match. Names as they are written go before those that differ in case or in how accents
    are coded, and photos directly in the folder before those of its subfolders.

    Args:
        folder: a path or an address.
        ids: of the photos.

    Returns:
        Paths or addresses by id.

    Raises:
        ConfigError: if there is no such folder, several of its photos match one id, or none matches any.
    """
    remote = is_address(folder)
    if not remote and not expand_user(folder).is_dir():
        raise ConfigError(f"{folder}: no such folder of photos; check the path")
    root = folder if remote else str(expand_user(folder))
    depths = _by_depth(files_of(root))
    plain, folded = ([_table(part, key) for part in depths] for key in (_plain, _folded))
    tables, direct = [*plain, *folded], [plain[0], folded[0]]
    found: dict[str, str] = {}
    first = ""
    for id_ in ids:
        first = first or id_
        name = id_.replace("\\", "/").removeprefix("./").strip("/")
        matches = _matches(name, tables)
        if not matches and "/" in name:
            # The folder may be the one that the id names, on this machine: a.jpg for val2014/a.jpg.
            matches = _matches(name.rpartition("/")[2], direct)
        if len(matches) > 1 and not (not remote and _one_file(root, matches)):
            shown = ", ".join(matches[:3]) + (", ..." if len(matches) > 3 else "")
            raise ConfigError(
                f"{folder}: {len(matches)} photos match the id {id_!r}: {shown}; "
                "leave one in the folder, or write the photo's path as the id"
            )
        if matches:
            found[id_] = join(root, matches[0]) if remote else str(Path(root, matches[0]))
    if not found:
        raise ConfigError(f"{folder}: no photo is named like an id, such as {first!r}; check the folder")
    return found


def _by_depth(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """The files directly in the folder, and those below."""
    parts: tuple[list[str], list[str]] = ([], [])
    for path in paths:
        parts["/" in path].append(path)
    return parts


def _table(paths: Iterable[str], key: _Key) -> tuple[_Key, dict[str, list[str]], dict[str, list[str]]]:
    """Files by their whole path or name, and photos by what is less than that."""
    whole: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}
    for path in paths:
        pure = PurePosixPath(path)
        names = {str(pure.with_suffix("")), pure.stem}
        if (number := _NUMBERED.fullmatch(pure.stem)) is not None:
            names.add(_number(number[1]))
        for name in {path, pure.name}:
            whole.setdefault(key(name), []).append(path)
        if pure.suffix and not is_photo(path):
            continue
        for name in names:
            parts.setdefault(key(name), []).append(path)
    return key, whole, parts


def _matches(name: str, tables: list[tuple[_Key, dict[str, list[str]], dict[str, list[str]]]]) -> list[str]:
    """Photos that a name may mean, of the first kind of match that there is."""
    wanted = {name, _number(name)} if name.isascii() and name.isdigit() else {name}
    for key, whole, parts in tables:
        if key(name) in whole:
            return whole[key(name)]
        found = dict.fromkeys(path for one in sorted(wanted) for path in parts.get(key(one), ()))
        if found:
            return list(found)
    return []


def _number(digits: str) -> str:
    """A number without leading zeros, marked so that it equals no name."""
    return f"\0{digits.lstrip('0') or '0'}"


def _one_file(root: str, paths: list[str]) -> bool:
    """Whether all paths lead to one file."""
    return len({str(Path(root, path).resolve()) for path in paths}) == 1


def _plain(name: str) -> str:
    """A name as it is written."""
    return name


def _folded(name: str) -> str:
    """What names have in common that some disks take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
