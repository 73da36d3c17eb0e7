from __future__ import annotations

import difflib

import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics import Captions
from promptfuse.evaluation.metrics.base import Sums
from promptfuse.evaluation.metrics.coco import Bleu, CiderD, RougeL
from promptfuse.evaluation.metrics.coco_java import Meteor
from promptfuse.evaluation.metrics.java import stanford_tokens
from promptfuse.evaluation.metrics.ptb import ptb_tokens
from promptfuse.evaluation.metrics.tokens import PUNCTUATION, tokenise

KNOWN = {
    "A man rides a bike.": "a man rides a bike .",
    "The dog doesn't run, it's asleep!": "the dog does n't run , it 's asleep !",
    "I can't, won't and shan't; they're mine": "i ca n't , wo n't and sha n't ; they 're mine",
    "The dog's bowl and the dogs' house": "the dog 's bowl and the dogs ' house",
    "he'd say she'll go, I've gone, I'm here": "he 'd say she 'll go , i 've gone , i 'm here",
    "You cannot miss it, gonna go": "you can not miss it , gon na go",
    '"Stop" on a sign': "`` stop '' on a sign",
    "a sign that reads 'stop'": "a sign that reads ` stop '",
    "A man (in red) [left] {here}": "a man -lrb- in red -rrb- -lsb- left -rsb- -lcb- here -rcb-",
    "A t-shirt for a 3-year-old": "a t-shirt for a 3-year-old",
    "a multi -colored kite - and a semi- truck": "a multi - colored kite - and a semi - truck",
    "a dog -- a cat --- a bird": "a dog -- a cat -- a bird",
    "It is 12:43, or 5 p.m.": "it is 12:43 , or 5 p.m.",
    "10:30pm costs $5.50 or 5%": "10:30 pm costs $ 5.50 or 5 %",
    "1,000 people, 3/4 of them, no. 5 of 8": "1,000 people , 3/4 of them , no. 5 of 8",
    "wait... what?! yes!! . . .": "wait ... what ?! yes !! ...",
    "Mr. Smith on 5th Ave. near Dr. King blvd.": "mr. smith on 5th ave. near dr. king blvd.",
    "the U.S. flag on a T.V.": "the u.s. flag on a t.v.",
    "a tub/shower and/or w/o a sink": "a tub/shower and/or w/o a sink",
    "end of it.The man": "end of it.the man",
    "Rock'n'roll at five o'clock": "rock 'n' roll at five o'clock",
    "the '80s and the 1980's": "the '80s and the 1980 's",
    "AT&T and a & b #1 @home": "at&t and a & b # 1 @home",
    "tom's bird's-eye view of the man's": "tom 's bird 's - eye view of the man 's",
    "a happy face :) <3": "a happy face :-rrb- < 3",
    "it’s “quoted” — a café": "it 's `` quoted '' -- a café",
    '6\'4" tall, 12" x 12"': "6 ' 4 '' tall , 12 '' x 12 ''",
    "www.foo.com, foo@bar.com": "www.foo.com , foo@bar.com",
    "a + b = c * 2 ~ ok": "a + b = c * 2 ~ ok",
    "a dog 🐶 on the beach☀\ufe0f!": "a dog on the beach ☀ !",
    "a family 👨\u200d👩\u200d👧 and a cafe\u0301 by nai\u0308ve cooks": (
        "a family and a cafe\u0301 by nai\u0308ve cooks"
    ),
    "«Ciao» and a t\u2011shirt \u2015 ⅓ of it": "`` ciao '' and a t\u2011shirt -- 1/3 of it",
    "": "",
    "...": "...",
}
"""Captions with their words, as the Stanford tokenizer was seen to cut them."""


@pytest.mark.parametrize(("text", "words"), KNOWN.items())
def test_known_words(text, words):
    assert " ".join(ptb_tokens(text)) == words


def test_the_known_words_are_java_s(java):
    kept = [text for text in KNOWN if text != "www.foo.com, foo@bar.com"]  # Java's takes the comma along.
    for text, words in zip(kept, stanford_tokens(kept), strict=True):
        # An abbreviation at the end gets a full stop of its own, which is left out later.
        assert " ".join(words) in (KNOWN[text], KNOWN[text] + " .")


def test_punctuation_is_left_out():
    found = tokenise(['A "dog" - it\'s (small)!'], [["Two dogs; one: runs...", "?"]], "python")
    assert found.texts == ["a dog it 's -lrb- small -rrb-"]
    assert found.references == [["two dogs one runs", ""]]
    assert found.kind == "python"


@pytest.mark.parametrize("character", ["\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\t", "\xa0"])
def test_a_break_within_a_caption_moves_no_caption(java, character):
    texts = [f"a dog{character}runs", "", "a cat", ""]
    both = [tokenise(texts, [["x"], [""], ["y z"], ["a"]], kind) for kind in ("stanford", "python")]
    for found in both:
        assert found.texts == ["a dog runs", "", "a cat", ""]
        assert found.references == [["x"], [""], ["y z"], ["a"]]


@pytest.mark.parametrize("kind", ["stanford", "python"])
def test_captions_that_are_no_unicode(java, kind):
    found = tokenise(["a \ud800 dog", "ok"], [["x"], ["y"]], kind)
    assert found.texts == ["a dog", "ok"]


def test_without_java_the_python_rules_are_used(monkeypatch):
    monkeypatch.setattr("promptfuse.evaluation.metrics.java.find_java", lambda: None)
    found = tokenise(["A dog."], [["A cat."]])
    assert (found.texts, found.kind) == (["a dog"], "python")
    assert "no java command found" in found.reason
    with pytest.raises(ConfigError, match="no java command found"):
        tokenise(["A dog."], [["A cat."]], "stanford")


def test_a_java_that_does_not_work_is_as_none(monkeypatch, tmp_path):
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\necho 'The operation couldn’t be completed.' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    captions = Captions(["1"], ["A dog."], [["A cat."]])
    assert captions.tokens.kind == "python"
    assert "couldn’t be completed" in captions.tokens.reason
    (found,) = Meteor().measure(captions)
    assert "couldn’t be completed" in found.reason


def test_long_nonsense_takes_no_time():
    for text in ("a" * 50_000, "a." * 20_000, "1-" * 20_000, "'" * 20_000, "a@" * 20_000, "<a" * 20_000):
        assert ptb_tokens(text)


def kept(words):
    return [word for word in words if word not in PUNCTUATION]


def agreement(texts):
    """The share of Java's words that ours has in the same place."""
    same = total = 0
    for text, theirs in zip(texts, stanford_tokens(texts), strict=True):
        first, second = kept(theirs), kept(ptb_tokens(text))
        total += len(first)
        if first == second:
            same += len(first)
        else:
            blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
            same += sum(block.size for block in blocks)
    return same / total


@pytest.mark.slow
def test_agreement_with_java_on_flickr8k_and_coco(java, flickr, coco_captions):
    texts = [" ".join(text.split()) for row in flickr for text in row["captions"]]
    assert agreement(texts[::4]) >= 0.9999
    assert agreement(coco_captions[::4]) >= 0.9999


def difference_in_metrics(texts, references):
    """The largest difference in corpus and caption between both tokenizers, by metric."""
    found = {}
    for metric in (Bleu(), RougeL(), CiderD()):
        pair = []
        for kind in ("stanford", "python"):
            ids = [str(index) for index in range(len(texts))]
            pair.append(metric.measure(Captions(ids, texts, references, tokenizer=kind)))
        for theirs, ours in zip(*pair, strict=True):
            assert isinstance(theirs, Sums)
            found[theirs.name] = abs(theirs.value - ours.value)
    return found


@pytest.mark.slow
def test_metrics_without_java_are_within_the_stated_tolerance(java, flickr):
    rows = flickr[-500:]
    found = difference_in_metrics([row["captions"][0] for row in rows], [row["captions"][1:] for row in rows])
    assert max(found.values()) < 0.001


def test_metrics_without_java_on_tricky_captions(java):
    texts = list(KNOWN)[:-2]
    references = [[texts[index], texts[index - 1]] for index in range(len(texts))]
    found = difference_in_metrics(texts, references)
    assert found["cider_d"] < 0.05
    assert found["bleu_4"] < 0.005
