"""Penn-Treebank words without Java, near enough to the Stanford tokenizer for captions.

The rules are the treebank's: contractions and possessives are words of their own (``do n't``, ``dog 's``),
hyphenated words stay whole, abbreviations keep their full stop, quotes become `````` and ``''``, brackets
``-lrb-`` and its kin. Where the treebank leaves a choice, the choice is what the Stanford tokenizer 3.4.1 was
seen to do on words and captions. ``docs/reference/metrics.md`` says how often the two differ.
"""

from __future__ import annotations

import re

_LIKE_ASCII = str.maketrans(
    {
        "’": "'",
        "‘": "`",
        "“": "``",
        "”": "''",
        "–": "--",
        "—": "--",
        "…": "...",
        "½": " 1/2 ",
        "¼": " 1/4 ",
        "¾": " 3/4 ",
        "⅓": " 1/3 ",
        "⅔": " 2/3 ",
        "«": "``",
        "»": "''",
        "‹": "`",
        "›": "'",
        "‛": "`",
        "―": "--",
        "¤": "$",
        "₠": "$",
        "£": "#",
        "€": "$",
        "¢": " cents ",
        "\xad": None,
        "\xa0": " ",
        "\x91": "`",
        "\x92": "'",
        "\x93": "``",
        "\x94": "''",
        "\x96": "--",
        "\x97": "--",
    }
)
_UNKNOWN = re.compile(
    "[\u200b-\u200f\u2012\u2024\u2025\u2027\u202a-\u202e\u203c\u203d\u2043\u2045-\u206f"
    "\u20a1-\u20a3\u20a5-\u20ab\u20ad-\u20c0\u2150-\u2152\u215f-\u218b\u3003-\u301f"
    "\ufe00-\ufe0f\ufffd\U00010000-\U0010ffff]"
    r"|(?<!\w)[\u2010\u2011]|[\u2010\u2011](?!\w)"
)
"""What the Stanford tokenizer does not know and drops: emoji, marks of direction and joining, and more."""

_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " "}

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

_ABBREVIATIONS = """
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri
    mr mrs ms dr prof rev gen col sgt lt capt cmdr maj cpl pfc spc pvt lieut adm brig gov pres rep reps
    sen sens messrs mme msgr hon atty supt insp profs drs jr sr esq md ph
    st ste ave blvd rd ct rt mt ft bldg dept sq ext tel
    inc co cos corp ltd plc bros assn assoc intl natl mfg mtg adv asst conn elec univ sys sci med
    bancorp bhd pty ind det est seq vs etc al cf mo va ga ky la md wm alex jos
    penn tenn kan kans fla mich colo calif minn neb nev wis wisc wyo dak ariz okla mont ala ens treas cie
    pte vt adj
""".split()
_BEFORE_NUMBERS = "no nos art ca pp op fig figs prop".split()
"""Abbreviations only in front of a number."""

_LETTER = r"[^\W\d_]"
_ON = r"[\w\u02c2-\u02ff\u0300-\u036f]"
"""What continues a word, accents that are characters of their own included."""
_SHORT = r"(?:s|m|d|re|ve|ll)\b"
_STARTS = "A|An|As|At|He|His|I|If|In|It|On|She|The|There|They|This|We|When|You"

_RULES = {
    "tag": r"</?[a-z][^<>\s]*> | <[a-z]+\s*/>",
    "address": r"""(?:https?|ftp)://[^\s"<>]*[\w/] | [\w.+-]+@[\w-]+(?:\.[\w-]+)+""",
    # Two words that are written as one.
    "joined": r"""\b(?: can(?=not\b) | gon(?=na\b) | wan(?=na\b) | got(?=ta\b) | gim(?=me\b) | lem(?=me\b) )
        | 't(?=is(?:\b|n't) | was(?:\b|n't))""",
    # Words that an apostrophe begins or ends.
    "clipped": r"""'n' | (?<!\d)'(?: n | em | till? | cause | \d0s | \d\d )(?!\w)
        | \b(?: ol | dunkin | somethin | [ydlj] )'(?!\w) | \by'(?=(?:all|know)\b)""",
    "suffix": rf"'{_SHORT} | n't\b",
    "ampersand": r"(?-i: \b[A-Z]+ (?:&[A-Z]+)+ \b ) | \br&b\b",
    "acronym": rf"\b(?:{_LETTER}\.){{2,}} (?:{_LETTER}\b(?!\.))? (?:-\w+)*",
    "abbreviation": rf"""\b{_LETTER}\.(?!\w | \s(?-i:{_STARTS})\b) | \b(?:{"|".join(_ABBREVIATIONS)})\.(?!\w)
        | \b(?:{"|".join(_BEFORE_NUMBERS)})\.(?=\s?\d)""",
    "language": r"\b(?: c\+\+ | [cf]\# )",
    "clock": r"\d+:\d\d(?=[ap]m\b)",
    "number": r"(?: (?<!\w)[-+] )? \d+ (?:[.,:/-]\d+)* (?!\w|-\w|/\w) | (?<!\w)\.\d+",
    # Letters and digits, joined by hyphens, slashes, apostrophes or full stops without a blank.
    "word": rf"""\w+? (?=n't\b)
        | (?: (?<!\w)[@\#](?={_LETTER}) )?
          \w (?: {_ON} | '(?!{_SHORT} | [nt]\b | n')(?=\w) | [-/\u2010\u2011](?=\w)
              | (?<={_LETTER})[.!?](?={_LETTER}) )*""",
    "smiley": r"(?<!\w) [:;=]'?-?[()] (?!\w)",
    "ellipsis": r"\.{3,} | \.(?:\s\.){2,}",
    "dash": r"--+",
    "quote": r"""`` | \'\' | ["`']""",
    "bracket": r"[()\[\]{}]",
    "run": r"[!?]+ | \*+ | _+ | \#+ | @+",
    "other": r"[^\s\w]",
}
"""What makes a token, by kind; the first rule that fits where the last token ended is taken."""

_PATTERN = re.compile(
    "|".join(f"(?P<{kind}>{rule})" for kind, rule in _RULES.items()), re.VERBOSE | re.IGNORECASE
)


def ptb_tokens(text: str) -> list[str]:
    """Words and punctuation of a text, in lower case."""
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    text = _UNKNOWN.sub(" ", text.translate(_LIKE_ASCII))
    tokens = []
    for found in _PATTERN.finditer(text):
        token, kind = found.group().lower(), found.lastgroup
        if kind == "quote":
            token = _quote(
                token, text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]
            )
        elif kind in ("bracket", "smiley"):
            token = "".join(_BRACKETS.get(character, character) for character in token)
        elif kind == "ellipsis":
            token = "..."
        elif kind == "dash":
            token = "--"
        tokens.append(token)
    return tokens


def _quote(token: str, before: str, after: str) -> str:
    """A quote as opening or closing: it opens where a letter or digit follows."""
    if token == '"':
        return "``" if after.isalnum() else "''"
    if token == "'":
        return "`" if after.isalnum() and not before.isalnum() else "'"
    return token
