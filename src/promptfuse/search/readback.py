"""Whether every model reads the same text: the round trip through all tokenizers of an objective."""

from __future__ import annotations

from promptfuse.models import Model
from promptfuse.objectives import Objective


class RoundTrip:
    """Asks each tokenizer of an objective to read a text back from its own ids.

    What a tokenizer drops for good (case, repeated blanks) does not matter: the ids of what it decodes
    must be the ids that it gave. A text with a token that the model does not know fails, because the
    model then judges another text.

    Args:
        objective: its terms' models are asked, each once; terms without a model read any text.
    """

    def __init__(self, objective: Objective) -> None:
        found = [term.model for term in objective.terms.values() if term.has_model]
        self.models = list({id(model): model for model in found}.values())
        self._known: dict[str, bool] = {}

    def holds(self, text: str) -> bool:
        """Whether every model reads the text back; remembered, since beams are asked about repeatedly."""
        if text not in self._known:
            if len(self._known) > 65536:
                self._known.clear()
            self._known[text] = all(reads_back(model, text) for model in self.models)
        return self._known[text]


def reads_back(model: Model, text: str) -> bool:
    """Whether a model's tokenizer gives the same ids for what it decodes from them."""
    tokenizer = model.tokenizer
    ids: list[int] = tokenizer([text], add_special_tokens=False, verbose=False)["input_ids"][0]
    if tokenizer.unk_token_id in ids:
        return False
    again = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    found: list[int] = tokenizer([again], add_special_tokens=False, verbose=False)["input_ids"][0]
    return found == ids
