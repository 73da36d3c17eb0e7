import pytest

from promptfuse.text.borders import glues, needs_blank, starts_word


@pytest.mark.parametrize(
    ("before", "behind", "starts"),
    [
        ("The", " Coin", True),
        ("The", "Coin", False),
        ("The", "2", False),
        ("The", ",", False),
        ("The", "'s", False),
        ("The", " ,", False),
        ("The", " (old)", True),
        ("The", " \u201cold\u201d", True),
        ("The", " ", True),
        ("The", "  Coin", False),
        ("Café au lait", " rape", True),
        ("Café au lait", "rape", False),
        ("Cafe\u0301", "s", False),
        ("Cafe\u0301", " s", True),
        ("a photo of:", "Dog", False),
        ("a photo of:", " Dog", True),
        ("Yes.", "No", False),
        ('A sign that says "', "Stop", True),
        ('A sign that says "', " Stop", False),
        ('The "old"', "man", False),
        ('The "old"', " man", True),
        ("the dogs'", " bowl", True),
        ("the dogs'", "bowl", False),
        ("the (", "old", True),
        ("the (", " old", False),
        ("\u00abLe", " chat", True),
        ("\u00ab", "Le", True),
        ("a black-", "and", True),
        ("a dog -", "and", False),
        ("a dog -", " and", True),
        ("a dog \u2014", " and", True),
        ("and/", "or", True),
        ("it costs $", "5", True),
        ("one\n", "A dog", True),
        ("one\n", " A dog", False),
        ("\u4e00\u53ea", "\u732b", True),
        ("\u4e00\u53ea\u732b\u3002", "\u72d7", True),
        ("\u0e41\u0e21\u0e27", "\u0e14\u0e33", True),
        ("\u4e00\u53ea", "\uff0c", False),
        ("A cat, \u732b", "cat", True),
        ("The", "\u732b", True),
        ("\uace0\uc591\uc774\uac00", "\uc788\ub2e4", False),
        ("\uace0\uc591\uc774\uac00", " \uc788\ub2e4", True),
        ("", "anything", True),
        ("", ",", True),
        ("The", "", True),
    ],
)
def test_a_word_of_its_own(before: str, behind: str, starts: bool) -> None:
    assert starts_word(before, behind) is starts


def test_where_a_blank_belongs() -> None:
    assert [needs_blank(text) for text in ("", "The", "The ", "\n", "one:", 'say "', "(", "\u4e00")] == [
        False, True, False, False, True, False, False, False,
    ]  # fmt: skip


def test_only_a_letter_or_an_accent_goes_on_with_a_word() -> None:
    assert [glues("The", text) for text in ("re", "\u0301", "5", " re", ".", "'s", "")] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip
    assert not glues("\u4e00\u53ea", "\u732b")
    assert not glues('say "', "Stop")
