"""Files of labelled texts: what is read of each kind, and what is said of those that cannot be used."""

from __future__ import annotations

import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.labelled_texts import read_labelled_texts


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "split\tlabel\tcaption\ntrain\tgood\tA dog\n\nval\tbad\tA cat\n\tgood\tA cow\n"),
        ("a.csv", "text,label,split\r\nA dog,good,TRAIN\r\nA cat,bad,test\r\n A cow ,good,\r\n"),
        ("a.csv", "sentence;Sentiment;split\nA dog;good;train\nA cat;bad;dev\nA cow;good;\n"),
        (
            "a.jsonl",
            '{"text": "A dog", "label": "good", "split": "train"}\n\n'
            '{"text": "A cat", "label": "bad", "split": "validation"}\n{"text": "A cow", "label": "good"}\n',
        ),
        (
            "a.json",
            '[{"captions": ["A dog"], "label": "good", "split": "train"},'
            '{"caption": "A cat", "label": "bad", "split": "val"}, {"text": "A cow", "label": "good"}]',
        ),
    ],
)
def test_files_of_every_kind(write, name, text):
    found = read_labelled_texts([str(write(name, text))])
    assert found.texts == ("A dog", "A cat", "A cow")
    assert found.labels == ("good", "bad", "good")
    assert found.held_out == (False, True, None)


def test_a_file_may_have_one_label(write):
    lines = write("plain.txt", "A dog\n\n[A cat]\n")
    table = write("table.tsv", "id\tcaption\tsplit\n1\tA cow\tval\n")
    whole = write("a=b.csv", "text,label\nA hen,7\n")
    found = read_labelled_texts([f"neutral={lines}", f" calm = {table}".replace("= ", "="), str(whole)])
    assert found.texts == ("A dog", "[A cat]", "A cow", "A hen")
    assert found.labels == ("neutral", "neutral", "calm", "7")
    assert found.held_out == (None, None, True, None)
    assert found.sources[0] == f"neutral={lines}"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", "label\tremark\ngood\tA dog\n", "line 2: no column of texts (found label, remark)"),
        ("a.csv", "label,remark\ngood,A dog\n", 'line 1: no column of texts in the header "label,remark"'),
        ("a.txt", "A dog\nA cat\n", 'line 1: no column of texts in the header "a dog"'),
        (
            "a.csv",
            "text,mood\nA dog,good\n",
            "line 2: no column of labels (found text, mood)",
        ),
        ("a.csv", "text,label\n ,good\n", "line 2: the text is empty"),
        ("a.tsv", "text\tlabel\nA dog\tgood\n\tbad\n", "line 3: the text is empty"),
        ("a.jsonl", '{"text": "A dog", "label": null}\n', "line 1: the label is empty"),
        ("a.jsonl", '{"text": 5, "label": "good"}\n', "line 1: no column of texts"),
        ("a.jsonl", '{"text": "A dog", "label": 0.5}\n', "line 1, label: expected a text"),
        ("a.jsonl", '{"text": "A dog" "label": 1}\n', "line 1: not valid JSON"),
        ("a.csv", "text,label,split\nA dog,good,most\n", "line 2: the split 'most' is not known"),
        ("a.csv", "", "is empty"),
    ],
)
def test_files_that_cannot_be_used(write, name, text, said):
    path = write(name, text)
    with pytest.raises(ConfigError) as error:
        read_labelled_texts([str(path)])
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "good={}/a.csv",
            "has a column 'label', so the file cannot be given a label",
        ),
        ("={}/a.csv", "write LABEL=FILE"),
        ("good=", "write LABEL=FILE"),
        ("good={}/none.txt", "none.txt: no such file"),
        ("good={}/blank.txt", "no texts"),
    ],
)
def test_labels_of_files_that_cannot_be_used(write, tmp_path, source, said):
    write("a.csv", "text,label\nA dog,good\n")
    write("blank.txt", "\n \n")
    with pytest.raises(ConfigError) as error:
        read_labelled_texts([source.format(tmp_path)])
    assert said in str(error.value)
