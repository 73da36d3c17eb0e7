from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import read_dataset
from promptfuse.evaluation.datasets.documents import csv_records, json_lines, json_records
from promptfuse.evaluation.datasets.table import read_table

Found = list[tuple[str, tuple[str, ...], str]]


def rows(path: object, **settings: object) -> Found:
    return [(photo.id, photo.references, photo.split) for photo in read_dataset(path, **settings).photos]


def test_rows_of_one_photo_are_grouped_in_their_first_place(write):
    path = write("d.csv", "image,caption\nb.jpg,One\na.jpg,Two\nb.jpg,Three\n")
    assert rows(path) == [("b.jpg", ("One", "Three"), ""), ("a.jpg", ("Two",), "")]


@pytest.mark.parametrize("column", ["image", "file", "filename", "file_name", "path", "Image", " PATH "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_headers_line_ends_and_byte_order_marks(write, column, end, mark):
    text = mark + end.join(
        [f"id,{column},caption,split", '1,a.jpg,"A cat, here",val', "2,b.jpg,A dog,test", ""]
    )
    path = write("d.csv", text)
    assert rows(path) == [("1", ("A cat, here",), "val"), ("2", ("A dog",), "test")]


@pytest.mark.parametrize(
    ("name", "delimiter"), [("d.tsv", "\t"), ("d.txt", "\t"), ("d.csv", ";"), ("d.csv", "| ")]
)
def test_delimiters_are_found_in_the_header(write, name, delimiter):
    lines = [["image", "caption"], ["a.jpg", "A cat, here"]]
    path = write(name, "\n".join(delimiter.join(line) for line in lines))
    assert rows(path) == [("a.jpg", ("A cat, here",), "")]


def test_a_spreadsheet_saves_unicode_text_as_utf_16(write):
    path = write("d.txt", "image\tcaption\r\nä.jpg\tEin Hündchen\r\n".encode("utf-16"))
    assert rows(path) == [("ä.jpg", ("Ein Hündchen",), "")]


def test_json_lines_and_lists_have_one_caption_or_many(write):
    lines = [
        {"file": "a.jpg", "captions": ["One", "Two"], "split": "dev"},
        {"file": "b.jpg", "references": ["Three"], "id": 5},
        {"file": "c.jpg", "caption": "Four"},
        {"file": "c.jpg", "reference": "Five"},
        {"file": "d.jpg"},
    ]
    expected = [
        ("a.jpg", ("One", "Two"), "dev"),
        ("5", ("Three",), ""),
        ("c.jpg", ("Four", "Five"), ""),
        ("d.jpg", (), ""),
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    assert rows(write("d.jsonl", text)) == expected
    assert rows(write("e.jsonl", "\n\n" + text.replace("\n", "\r\n\r\n") + "\n")) == expected
    assert rows(write("d.json", lines)) == expected
    assert rows(write("f.json", json.dumps(lines, indent=2))) == expected
    assert rows(write("one.jsonl", text.split("\n")[0])) == expected[:1]


def test_a_cell_may_hold_a_list_in_json(write):
    path = write("d.csv", 'image,captions\na.jpg,"[""One"", ""Two""]"\nb.jpg,Three\n')
    assert rows(path) == [("a.jpg", ("One", "Two"), ""), ("b.jpg", ("Three",), "")]


def test_captions_are_stripped_and_empty_ones_counted(write, photo, tmp_path):
    photo(tmp_path / "a.jpg")
    captions = ["  A cat \n", "", "   ", None, "\tA\u00a0dog"]
    dataset = read_dataset(write("d.json", [{"image": "a.jpg", "captions": captions}]))
    assert dataset.photos[0].references == ("A cat", "A\u00a0dog")
    assert dataset.problems == ("3 empty captions left out",)


def test_ids_of_data_frames_are_whole_numbers(write):
    path = write("d.json", [{"image": "a.jpg", "id": 42.0}, {"image": "b.jpg", "id": None}])
    assert [row[0] for row in rows(path)] == ["42", "b.jpg"]


def test_one_photo_may_have_two_ids_but_an_id_only_one_photo(write):
    path = write("d.csv", "id,image,caption\n1,a.jpg,One\n2,a.jpg,Two\n")
    assert rows(path) == [("1", ("One",), ""), ("2", ("Two",), "")]
    path = write("d.csv", "id,image,caption\n1,a.jpg,One\n1,b.jpg,Two\n")
    with pytest.raises(ConfigError, match=r"id '1' occurs twice \(line 2, line 3\)"):
        read_dataset(path)


def test_lists_of_captions_are_not_grouped(write):
    path = write("d.json", [{"image": "a.jpg", "captions": ["x"]}, {"image": "a.jpg", "captions": ["y"]}])
    with pytest.raises(ConfigError, match=r"'a.jpg' occurs twice \(row 1, row 2\)"):
        read_dataset(path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("d.csv", "photo,caption\na.jpg,x\n", 'no column names the photos in the header "photo,caption"'),
        ("d.csv", "image,caption\na.jpg,A cat, a dog\n", "line 2: 3 columns, but the header has 2"),
        ("d.csv", 'image,caption\na.jpg,"A cat\nb.jpg,x\n', "not valid CSV"),
        ("d.csv", "image,caption\n,x\n", "line 2: the column 'image' is empty"),
        ("d.csv", "image,caption,caption\na,b,c\n", "the column 'caption' occurs twice"),
        ("d.csv", "image,caption\n", "has no photos"),
        ("d.csv", "image,caption,split\na.jpg,x,val\na.jpg,y,test\n", "line 3: a.jpg is in the split 'test'"),
        ("d.csv", "image,captions\na.jpg,\"['x', 'y']\"\n", "is not a list in JSON"),
        ("d.jsonl", '{"image": "a.jpg"}\n{"image": \n', "line 2: not valid JSON"),
        ("d.jsonl", '{"image": \n{"image": "b.jpg"}\n', "line 1: not valid JSON"),
        ("d.jsonl", '{"image": "a.jpg"}\n["b.jpg"]\n', "line 2: expected fields"),
        ("d.jsonl", '{"image": "a.jpg"}\n{"caption": "x"}\n', "line 2: no column names the photo"),
        ("d.json", '[{"image": "a.jpg", "captions": [5]}]', "row 1, captions[0]: expected a caption"),
        ("d.json", '[{"image": "a.jpg", "captions": {"x": 1}}]', "row 1, captions: expected a caption"),
        ("d.json", '[{"image": "a.jpg", "caption": [1]}]', "row 1, caption[0]: expected a caption"),
        ("d.json", '[{"image": {"path": "a.jpg"}}]', "row 1, image: expected a text"),
        ("d.json", '["a.jpg"]', "row 1: expected fields"),
        ("d.json", '[{"image": "\\ud800.jpg"}]', "is not valid Unicode"),
        ("d.json", "[]", "has no photos"),
    ],
)
def test_wrong_tables_are_named_with_their_line(write, name, text, said):
    path = write(name, text)
    with pytest.raises(ConfigError) as error:
        read_dataset(path)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)
tables = st.lists(
    st.tuples(texts, st.lists(texts, max_size=3), st.sampled_from(["train", "val"])), max_size=8
)


@given(tables)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_every_way_to_write_a_table_reads_the_same(table):
    rows = [
        {"id": str(number), "image": name, "captions": captions, "split": split}
        for number, (name, captions, split) in enumerate(table)
    ]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    cells = io.StringIO(newline="")
    writer = csv.DictWriter(cells, ["id", "image", "captions", "split"], lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(row | {"captions": json.dumps(row["captions"])} for row in rows)
    expected = [(str(n), (name.strip(),), captions, split) for n, (name, captions, split) in enumerate(table)]
    for records in (json_records(rows), json_lines(lines), csv_records(cells.getvalue())):
        found = [(row.id, row.names[:1], row.captions, row.split) for row in read_table(records).rows]
        assert found == expected


@given(st.lists(st.tuples(st.sampled_from("abc"), texts)))
@settings(deadline=None)
def test_grouping_keeps_every_caption_in_order(pairs):
    contents = read_table(json_records([{"image": name, "caption": text} for name, text in pairs]))
    assert [row.id for row in contents.rows] == list(dict.fromkeys(name for name, _ in pairs))
    for row in contents.rows:
        assert row.captions == [text for name, text in pairs if name == row.id]


def test_a_delimiter_that_is_missing():
    text = "image_name| comment_number| comment\na.jpg| 0| A dog.\na.jpg| 1   A dog runs.\n"
    with pytest.raises(ConfigError, match=r"line 3: 2 columns, but the header has 3; a '\|' is missing"):
        list(csv_records(text))


def test_a_line_without_a_caption_beside_others():
    dog, none, other = '{"image": "a.jpg", "caption": "A dog."}', '{"image": "a.jpg"}', '{"image": "b.jpg"}'
    for lines in ([dog, none, other], [none, dog, other]):
        rows = read_table(json_lines("\n".join(lines))).rows
        assert [(row.id, row.captions) for row in rows] == [("a.jpg", ["A dog."]), ("b.jpg", [])]


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv"])
def test_the_photos_id_goes_before_the_captions_own(write, name):
    annotations = [(2, 1, "a.jpg", "One"), (3, 1, "a.jpg", "Two"), (1, 2, "b.jpg", "Three")]
    columns = ("id", "image_id", "image", "caption")
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in annotations]
    if name == "d.csv":
        lines = [",".join(columns), *(",".join(map(str, row)) for row in annotations)]
    assert rows(write(name, "\n".join(lines))) == [("1", ("One", "Two"), ""), ("2", ("Three",), "")]


@pytest.mark.parametrize("column", ["captions", "references", "caption", "reference", "comment", "raw"])
def test_any_column_of_captions_may_hold_a_list(write, column):
    one = {"image": "a.jpg", column: ["One", "Two"]}
    assert rows(write("d.json", [one])) == [("a.jpg", ("One", "Two"), "")]
    cell = 'a.jpg,"[""One"", ""Two""]"'
    assert rows(write("d.csv", f"image,{column}\n{cell}\n")) == [("a.jpg", ("One", "Two"), "")]


def test_a_caption_may_look_like_a_list(write):
    text = "image,caption\na.jpg,[Two men] walk\nb.jpg,[1]\n"
    assert rows(write("d.csv", text)) == [("a.jpg", ("[Two men] walk",), ""), ("b.jpg", ("[1]",), "")]


def test_an_empty_list_does_not_hide_a_caption(write):
    path = write("d.json", [{"image": "a.jpg", "captions": [], "caption": "One"}])
    assert rows(path) == [("a.jpg", ("One",), "")]


def test_a_quotation_mark_does_not_swallow_lines_between_tabs(write):
    path = write("d.tsv", 'image\tcaption\na.jpg\t"A dog\nb.jpg\ttwo cats"\n')
    with pytest.raises(ConfigError, match=r"line 3: a quotation mark .* the rows after it"):
        read_dataset(path)


def test_a_value_of_a_tsv_may_have_several_lines(write):
    path = write("d.tsv", 'image\tcaption\na.jpg\t"a dog\nruns"\n')
    assert rows(path) == [("a.jpg", ("a dog\nruns",), "")]
