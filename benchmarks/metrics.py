"""Caption metrics through pycocoevalcap: BLEU-4 and CIDEr-D."""

from __future__ import annotations

import contextlib
import io
import re
import shutil

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

PUNCTUATION = re.compile(r"""[.,!?;:"`]|''|--|\.\.\.""")


def _tokenise(texts: dict[int, list[str]]) -> tuple[dict[int, list[str]], str]:
    """Penn-Treebank tokens by the Java tokenizer; without Java, words in lower case."""
    if shutil.which("java"):
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        wrapped = {key: [{"caption": text} for text in group] for key, group in texts.items()}
        return PTBTokenizer().tokenize(wrapped), "ptb"
    plain = {
        key: [" ".join(PUNCTUATION.sub(" ", text.lower()).split()) for text in group]
        for key, group in texts.items()
    }
    return plain, "plain"


def caption_metrics(texts: list[str], references: list[list[str]]) -> dict[str, float | str]:
    """BLEU-4 and CIDEr-D of one caption a photo against several references."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found, kind = _tokenise({index: [text] for index, text in enumerate(texts)})
        truth, _ = _tokenise(dict(enumerate(references)))
        bleu, _ = Bleu(4).compute_score(truth, found, verbose=0)
        cider, _ = Cider().compute_score(truth, found)
    return {"bleu4": float(bleu[3]), "cider_d": float(cider), "tokenizer": kind}
