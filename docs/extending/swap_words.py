"""A proposal method: swap two words of a text."""

from dataclasses import dataclass
from itertools import combinations

from promptfuse.search.methods import EditProposer, Method, Proposal, Proposed, methods


@methods.register("SwapWords")
@dataclass(frozen=True)
class SwapWords(Method):
    """Swap any two words, keeping the text if no swap is better."""

    init: str = "a dog runs through the grass"

    def proposer(self, context):
        return SwapWordsProposer(context, self)


class SwapWordsProposer(EditProposer):
    keeps_parents = True  # A step may end with the texts that it began with.

    def __init__(self, context, settings):
        super().__init__(context)
        self.settings = settings

    def initial_texts(self):
        return [self.after_prefix(self.settings.init)]

    def propose(self, beams):
        found = {}
        for number, beam in enumerate(beams):
            for one, two in combinations(range(len(words := beam.text.split())), 2):
                swapped = list(words)
                swapped[one], swapped[two] = words[two], words[one]
                text = " ".join(swapped)
                (ids,) = self.encode([text])
                if ids is not None:  # It reads back, keeps the rules, and begins with the prefix.
                    found.setdefault(text, Proposal(text, ids, nll=None, parent=number))
        return Proposed(list(found.values()), ended=[])
