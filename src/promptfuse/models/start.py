"""What stands in front of the texts that a causal language model reads.

A base model's texts begin with its begin-of-text token or with a document separator. An instruct model may
name a token of its chat format as begin-of-text (``<|im_start|>``), which never comes before plain text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerFast

from promptfuse.errors import ConfigError

SEPARATORS = (
    "<|endoftext|>", "<|end_of_text|>", "<|startoftext|>", "<|begin_of_text|>", "<s>", "<bos>", "</s>",
    "<eos>",
)  # fmt: skip
"""Names of tokens between documents, for models whose own begin and end marks are those of a chat."""

_CHAT = re.compile(
    r"im_(start|end|sep|middle|user|assistant|system)"
    r"|(start|end)_?(of_?)?(turn|role|header|message|user|assistant|system|human|bot)"
    r"|\b(eot|eom)(_id)?\b|header_id|inst\b"
    r"|^\W*(user|assistant|system|human|bot|gpt|tool|role|turn|observation)\W*$",
    re.IGNORECASE,
)
"""Names of tokens that mark turns and roles of a chat."""


@dataclass(frozen=True)
class Start:
    """What stands before every text.

    Attributes:
        ids: special tokens.
        front: a chat template's part before the text, in place of them.
        behind: its part after the text.
        ends: tokens that end a text, besides the model's own.
        usual: whether it is the begin-of-text token, or the end-of-text token where there is none.
    """

    ids: tuple[int, ...] = ()
    front: str = ""
    behind: str = ""
    ends: frozenset[int] = frozenset()
    usual: bool = False

    def shown(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """How it is told to people: a token, a template, or ``none``."""
        if self.front or self.behind:
            return f"{self.front}{{}}{self.behind}"
        return "".join(tokenizer.convert_ids_to_tokens(list(self.ids))) or "none"


def find_start(tokenizer: PreTrainedTokenizerFast, config: Any, wanted: str, name: str) -> Start:
    """What stands before every text of a model.

    Args:
        tokenizer: the model's.
        config: the model's.
        wanted: ``auto``, ``bos``, ``none``, a special token, ``chat`` or a template with a slot ``{}``; see
            ``CausalLM``.
        name: of the model, for error messages.

    Raises:
        ConfigError: if there is no such token, or the template has no slot or several.
    """
    if wanted == "none":
        return Start()
    if wanted == "auto":
        return _automatic(tokenizer, config)
    if wanted == "bos":
        found = _begin_id(tokenizer, config)
        if found is None:
            raise ConfigError(f"start 'bos': {name} has no begin-of-text token; give auto, none or a token")
        return Start((found,), usual=True)
    if wanted == "chat":
        wanted = _own_template(tokenizer, name)
    slot = "{text}" if "{text}" in wanted else "{}"
    if slot in wanted:
        if wanted.count(slot) > 1:
            raise ConfigError(f"start {wanted!r}: has several slots {slot}; leave one for the text")
        front, _, behind = wanted.partition(slot)
        return Start(front=front, behind=behind)
    index = tokenizer.get_vocab().get(wanted)
    if index is None:
        raise ConfigError(
            f"start {wanted!r}: is not a token of {name}, nor a template, which has a slot {{}} for the "
            "text; give auto, bos, none, chat, a token or a template"
        )
    return Start((index,))


def _automatic(tokenizer: PreTrainedTokenizerFast, config: Any) -> Start:
    """The begin-of-text token, or what stands between documents: never a token of a chat."""
    begin, added = _begin_id(tokenizer, config), tokenizer.get_added_vocab()
    if begin is not None and not _is_chat(tokenizer, begin, added):
        return Start((begin,), usual=True)
    if begin is None and (own := _own_front(tokenizer)):
        return Start(own)
    end = tokenizer.eos_token_id
    if begin is None and isinstance(end, int) and not _ends_turns(tokenizer, _spelled(tokenizer, end)):
        return Start((end,), usual=True)
    for name in SEPARATORS if begin is not None or isinstance(end, int) else ():
        if name in added:
            return Start((added[name],), ends=frozenset({added[name]}))
    return Start()


def _begin_id(tokenizer: PreTrainedTokenizerFast, config: Any) -> int | None:
    for value in (tokenizer.bos_token_id, getattr(config, "bos_token_id", None)):
        if isinstance(value, int):
            return value
    return None


def named_as_chat(token: str) -> bool:
    """Whether a special token's name says that it marks a turn or role of a chat."""
    return _CHAT.search(token) is not None


def _is_chat(tokenizer: PreTrainedTokenizerFast, index: int, added: dict[str, int]) -> bool:
    """Whether a begin-of-text token is one of a chat's turns: by its name, or by the chat template."""
    token = _spelled(tokenizer, index)
    if token in added and named_as_chat(token):
        return True
    if index in _own_front(tokenizer):  # Then plain text stands after it.
        return False
    # What also ends texts stands between documents; a chat may use it between its turns.
    return index != tokenizer.eos_token_id and _in_every_turn(tokenizer, token)


def _ends_turns(tokenizer: PreTrainedTokenizerFast, token: str) -> bool:
    """Whether an end-of-text token is one of a chat's turns alone."""
    template = getattr(tokenizer, "chat_template", None)
    used = isinstance(template, str) and token in template
    return named_as_chat(token) or (used and token not in SEPARATORS)


def _spelled(tokenizer: PreTrainedTokenizerFast, index: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(index) or "")


def _own_front(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """The special tokens that the tokenizer itself puts in front of a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True, verbose=False)
    mask = [*encoded["special_tokens_mask"], 0]
    return tuple(encoded["input_ids"][: mask.index(0)])


def _in_every_turn(tokenizer: PreTrainedTokenizerFast, token: str) -> bool:
    """Whether the chat template writes a token before a user's turn and before the answer."""
    template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str) or token == "":
        return False
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # Whatever a checkpoint's template raises; then the name alone tells.
        return False
    return text.count(token) > 1


def _own_template(tokenizer: PreTrainedTokenizerFast, name: str) -> str:
    """The model's chat template with the slot in the user's turn, up to where the answer begins."""
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(f"start 'chat': {name} has no chat template; give one with a slot {{}}")
    slot = "SLOT-OF-THE-TEXT"
    try:
        found = tokenizer.apply_chat_template(
            [{"role": "user", "content": slot}], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ConfigError(f"start 'chat': the template of {name} fails ({reason}); give one") from None
    if str(found).count(slot) != 1:
        raise ConfigError(f"start 'chat': the template of {name} does not show a text once; give one")
    return str(found).replace(slot, "{text}")


@lru_cache(maxsize=64)
def chat_ids(added: tuple[tuple[str, int], ...]) -> frozenset[int]:
    """The tokens of a chat among those that were added to a vocabulary."""
    return frozenset(index for token, index in added if named_as_chat(token))
