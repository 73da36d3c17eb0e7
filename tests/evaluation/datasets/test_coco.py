from __future__ import annotations

import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import Photo, read_dataset

IMAGES = [
    {"id": 42, "file_name": "000000000042.jpg", "width": 16},
    {"id": 7, "file_name": "000000000007.jpg"},
]


def annotation(image_id: object, caption: object) -> dict[str, object]:
    return {"id": 1, "image_id": image_id, "caption": caption}


def test_captions_come_to_their_photos(write, photo, tmp_path):
    for row in IMAGES:
        photo(tmp_path / "val2017" / row["file_name"])
    annotations = [annotation(7, "A dog. \n"), annotation(42, "A cat."), annotation(7, "One dog.")]
    path = write("annotations/captions_val2017.json", {"images": IMAGES, "annotations": annotations})
    dataset = read_dataset(path)
    # In the order of the photos; the photos lie beside the folder of the annotations.
    assert dataset.photos == (
        Photo("42", str(tmp_path / "val2017" / "000000000042.jpg"), ("A cat.",)),
        Photo("7", str(tmp_path / "val2017" / "000000000007.jpg"), ("A dog.", "One dog.")),
    )
    assert (dataset.name, dataset.format, dataset.problems) == ("captions_val2017", "coco", ())


def test_photos_without_captions_are_kept(write):
    path = write("d.json", {"images": IMAGES, "annotations": [annotation(7, "A dog.")]})
    assert [photo.references for photo in read_dataset(path).photos] == [(), ("A dog.",)]


def test_a_file_for_testing_has_no_annotations(write):
    path = write("image_info_test.json", {"images": IMAGES, "info": {}})
    dataset = read_dataset(path)
    assert dataset.format == "coco"
    assert [photo.id for photo in dataset.photos] == ["42", "7"]


def test_captions_of_unknown_photos_are_a_problem_and_no_error(write, photo, tmp_path):
    for row in IMAGES:
        photo(tmp_path / row["file_name"])
    strangers = [annotation(number, "x") for number in (1, 2, 3, 4, 1)]
    path = write("d.json", {"images": IMAGES, "annotations": [annotation("7", "A dog."), *strangers]})
    dataset = read_dataset(path)
    assert dataset.photos[1].references == ("A dog.",)  # A number in one place, a text in the other.
    assert dataset.problems == ("5 captions left out: no photo in 'images' has the image_id 1, 2, 3, ...",)


def test_an_id_that_occurs_twice_is_an_error(write):
    path = write("d.json", {"images": [*IMAGES, IMAGES[0]], "annotations": []})
    with pytest.raises(ConfigError, match=r"id '42' occurs twice \(images\[0\], images\[2\]\)"):
        read_dataset(path)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"images": IMAGES, "annotations": [{"image_id": 7, "bbox": []}]}, "give a file of captions"),
        ({"images": IMAGES, "annotations": {}}, "annotations: expected a list"),
        ({"images": IMAGES, "annotations": [annotation(None, "x")]}, "'image_id' is missing"),
        ({"images": IMAGES, "annotations": [annotation(7, ["x"])]}, "annotations[0].caption: expected a cap"),
        ({"images": [{"id": 1}], "annotations": []}, "images[0]: the field 'file_name' is missing"),
        ({"images": [{"file_name": "a.jpg"}], "annotations": []}, "images[0]: the field 'id' is missing"),
        (
            {"images": [{"id": True, "file_name": "a"}], "annotations": []},
            "expected a text or a whole number",
        ),
        ({"annotations": []}, "unknown format"),
    ],
)
def test_wrong_fields_are_named(write, document, said):
    path = write("d.json", document)
    with pytest.raises(ConfigError) as error:
        read_dataset(path)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
