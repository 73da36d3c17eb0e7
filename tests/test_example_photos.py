"""The example photographs: their form, their licences, and the words that name what they show."""

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
COUNTS = {"photos": 8, "photos_further": 12}
PHOTOS = [photo for folder in COUNTS for photo in sorted((EXAMPLES / folder).glob("*.jpg"))]
OBJECTS = yaml.safe_load((EXAMPLES / "photos_further" / "objects.yaml").read_text(encoding="utf-8"))
# Where a licence has a page of its own, the link goes there; of the public domain the photo's own page tells.
LICENCES = {
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC BY 2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "Public domain": "https://",
}
# Too wide to say what a photo shows.
WIDE = {"animal", "creature", "mammal", "object", "person", "people", "plant", "thing", "vehicle", "food"}


def name(photo: Path) -> str:
    return f"{photo.parent.name}/{photo.name}"


def licence_rows(folder: str) -> list[list[str]]:
    """The rows of a folder's table: file, what it shows, author, licence, source, changes."""
    text = (EXAMPLES / folder / "LICENSES.md").read_text(encoding="utf-8")
    lines = [line.strip("|") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.split("|")] for line in lines]


@pytest.mark.parametrize("photo", PHOTOS, ids=name)
def test_a_photo_is_a_small_rgb_jpeg_without_metadata(photo):
    with Image.open(photo) as image:
        image.load()
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert 300 <= max(image.size) <= 640
        assert not dict(image.getexif())
        # A JPEG's own header alone: no EXIF, XMP, comment or colour profile.
        assert {key for key in image.info if not key.startswith("jfif")} == set()


@pytest.mark.parametrize("folder", COUNTS)
def test_every_photo_has_one_allowed_licence_with_author_and_source(folder):
    rows = licence_rows(folder)
    photos = [photo.name for photo in PHOTOS if photo.parent.name == folder]
    assert len(photos) == COUNTS[folder]
    assert [row[0].strip("`") for row in rows] == photos
    for _file, shows, author, licence, source, changes in rows:
        assert all((shows, author, changes))
        title, address = re.fullmatch(r"\[(.+?)\]\((.+)\)", licence).groups()
        assert address.startswith(LICENCES[title])
        assert re.search(r"\[(original|project) page\]\(https://", source)


def test_every_photo_has_words_that_name_its_main_object():
    assert list(OBJECTS) == [name(photo) for photo in PHOTOS]
    listed = (ROOT / "src" / "promptfuse" / "adapters" / "words_en.tsv").read_text(encoding="utf-8")
    ordinary = {line.split("\t")[0] for line in listed.splitlines()}
    for photo, words in OBJECTS.items():
        assert words, photo
        assert len(set(words)) == len(words), photo
        assert all(re.fullmatch("[a-z]+", word) for word in words), photo
        assert not WIDE.intersection(words), photo
        assert ordinary.intersection(words), photo


def test_the_licences_are_announced():
    for file in ("NOTICE", "README.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        for folder in COUNTS:
            assert re.search(rf"examples/{folder}\b", text)


def test_the_further_photos_are_small_together():
    assert sum(photo.stat().st_size for photo in PHOTOS if photo.parent.name == "photos_further") < 1_000_000
