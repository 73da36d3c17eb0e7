"""Causal language models that go on from keys and values of what they have read already.

Many branches are packed into one row after one prefix, with a mask that separates them and positions of
their own (tree attention), so that no branch has a copy of the prefix. Where a model does not take such
masks, each branch is a row of its own. A trial finds out which of these holds; see ``choice``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from promptfuse.models.batch import Batch, TokenLoss
from promptfuse.models.batching import cut, run_halving
from promptfuse.models.branches import Branches, KVPrefix
from promptfuse.models.fast.branch_packing import cache_behind, pack, row_mask, tree_mask
from promptfuse.models.fast.chosen_logits import chosen_only
from promptfuse.models.fast.prefix import PrefixCache
from promptfuse.models.lookups import Lookup, embeddings_replaced
from promptfuse.models.precision import at_least_float32, token_losses

Mode = Literal["tree", "rows"]


@dataclass(frozen=True)
class _Run:
    """What has been read: logits of tokens, and where each branch's tokens stand in them.

    Attributes:
        logits: (rows, columns, vocabulary), or (tokens, vocabulary) of the tokens that were asked for.
        places: for each branch its row and first column.
        layers: keys and values of the new tokens, (rows, heads, columns, width) each.
    """

    logits: Tensor
    places: list[tuple[int, int]]
    layers: list[tuple[Tensor, Tensor]]


class KVReader:
    """Reads rows that go on from prefixes with a causal language model of ``transformers``.

    Args:
        module: the model.
        budget: tokens in one forward pass.
        limit: bytes of keys and values to remember.
        mode: whether branches are packed into rows, or have a row each.
        keeps_logits: whether the model can be asked for the logits of some columns only.
        lookups: what turns ids into input embeddings.
        longest: tokens of the longest row that it may read.
    """

    name = "kv-cache"

    def __init__(
        self,
        module: nn.Module,
        budget: int,
        limit: int,
        mode: Mode,
        *,
        keeps_logits: bool,
        lookups: tuple[Lookup, ...],
        longest: int,
    ) -> None:
        self.module = module
        self.budget = budget
        self.mode: Mode = mode
        self.keeps_logits = keeps_logits
        self.cache = PrefixCache(limit)
        self.lookups = lookups
        config: Any = module.config
        config = config.get_text_config()
        self.depth = int(config.num_hidden_layers)
        # Behind a window the oldest tokens are out of sight, which a shared prefix does not know.
        windows = (
            getattr(config, name, None)
            for name in ("sliding_window", "attention_chunk_size", "window_size", "attention_window")
        )
        self.longest = min(longest, *(size for size in windows if isinstance(size, int) and size > 0), 2**31)

    def clear(self) -> None:
        """Forget what was read."""
        self.cache.clear()

    @staticmethod
    def takes(module: nn.Module) -> bool:
        """Whether a model says that it takes keys and values of earlier tokens."""
        stateful = getattr(module, "_is_stateful", False)
        return not stateful and "past_key_values" in inspect.signature(module.forward).parameters

    # -------------------------------------------------------------------------------- what is asked

    def most_shared(self, row: Sequence[int]) -> int:
        """All tokens but the last, whose prediction is asked for."""
        return len(row) - 1

    def outputs(
        self, batch: Batch, branches: Branches | None
    ) -> Float[Tensor, "rows {batch.ids.shape[1]-1}"]:
        """NLL of every token but the first of each row, (rows, length - 1); zero if it is not predicted."""
        if branches is None:
            raise ValueError("rows without a prefix are for the plain reader")
        return self.nll(batch.rows, branches, batch.first_scored, batch.token_loss) * batch.predicted

    @torch.no_grad()
    def prefixes(self, rows: Sequence[tuple[int, ...]], nll: bool = True) -> list[KVPrefix]:
        """Keys, values and next-token distributions of rows, through what is remembered of them.

        Args:
            rows: token ids; an empty row gives ``EMPTY``.
            nll: whether the NLL of the rows' own tokens is wanted too.
        """

        def usable(prefix: KVPrefix) -> bool:
            return not nll or prefix.nll is not None

        made = {row: self.cache.longest(row, usable) for row in rows}
        missing = sorted(
            (row for row, prefix in made.items() if len(prefix) < len(row)),
            key=lambda row: len(row) - len(made[row]),
        )
        start = 0
        for stop in cut([len(row) - len(made[row]) for row in missing], self.budget):
            run = self._extending(missing, [made[row] for row in missing], nll)
            for part in run_halving(run, start, stop):
                made.update((prefix.ids, prefix) for prefix in part)
            start = stop
        found = [made[row] for row in rows]
        self.cache.hold([prefix for prefix in found if len(prefix)])
        return found

    def nll(
        self,
        rows: Sequence[Sequence[int]],
        branches: Branches,
        first: Sequence[int] | None = None,
        loss: TokenLoss | None = None,
    ) -> Float[Tensor, "{len(rows)} _"]:
        """NLL of every token but the first of each row, (rows, longest row - 1); differentiable.

        The prefixes have their NLL. Zero after a row's end.

        Args:
            rows: token ids.
            branches: where they go on from.
            first: for each row the first column that is asked for; new tokens before it get zero. None
                for all.
            loss: another loss of the tokens in place of the NLL; with ``first`` only.
        """
        device = _device(self.module)
        if loss is not None and first is not None:  # Prefixes know the NLL of their tokens alone.
            reach = tuple(min(pair) for pair in zip(branches.prefix_length, first, strict=True))
            branches = replace(branches, prefix_length=reach)
        prefix_index, prefix_length, fresh, owners, wanted = [], [], [], [], []
        for index, row in enumerate(rows):
            known = branches.prefix_length[index]
            asked = 0 if first is None else first[index]
            # The token that predicts the first new one is read again, unless its prediction is known, or
            # not asked for.
            told = self._predicts(branches, index) or asked >= known
            begin = known if told else max(known - 1, 0)
            if max(begin, asked) < len(row) - 1:
                prefix_index.append(branches.prefix_index[index])
                prefix_length.append(begin)
                fresh.append(row[begin:-1])
                owners.append(index)
                wanted.append(range(max(asked - begin, 0), len(row) - 1 - begin))
        found = self._known(rows, branches)
        if not owners:
            return found
        replaced = None if branches.embeddings is None else branches.embeddings[owners]
        run = self._run(branches.prefixes, prefix_index, prefix_length, fresh, replaced, wanted=wanted)
        into = [index for index, steps in zip(owners, wanted, strict=True) for _ in steps]
        column = [begin + step for begin, steps in zip(prefix_length, wanted, strict=True) for step in steps]
        targets = torch.tensor(
            [rows[index][place + 1] for index, place in zip(into, column, strict=True)], device=device
        )
        logits = at_least_float32(run.logits)
        return found.index_put(
            (torch.tensor(into, device=device), torch.tensor(column, device=device)),
            token_losses(logits, targets, loss),
        )

    # -------------------------------------------------------------------------------- how it is done

    @staticmethod
    def _predicts(branches: Branches, index: int) -> bool:
        """Whether a row shares a whole prefix, whose prediction of the next token is known."""
        prefix = branches.prefixes[branches.prefix_index[index]]
        return branches.prefix_length[index] == len(prefix) and prefix.following is not None

    def _known(self, rows: Sequence[Sequence[int]], branches: Branches) -> Float[Tensor, "{len(rows)} _"]:
        """The NLL that is known from the prefixes, (rows, longest row - 1), zero elsewhere."""
        parameter = next(self.module.parameters())
        kind = torch.promote_types(parameter.dtype, torch.float32)
        found = torch.zeros(len(rows), max(map(len, rows)) - 1, dtype=kind, device=parameter.device)
        for number, prefix in enumerate(branches.prefixes):
            mine = [
                index for index, prefix_index in enumerate(branches.prefix_index) if prefix_index == number
            ]
            if prefix.nll is not None and mine:
                reach = torch.tensor(
                    [branches.prefix_length[index] - 1 for index in mine], device=found.device
                )
                width = min(len(prefix.nll), found.shape[1])
                inside = torch.arange(width, device=found.device) < reach[:, None]
                found[mine, :width] = prefix.nll[:width] * inside
            whole = [index for index in mine if self._predicts(branches, index) and len(prefix)]
            if whole and prefix.following is not None:
                next_ids = [rows[index][len(prefix)] for index in whole]
                found[whole, len(prefix) - 1] = -prefix.following[next_ids]
        return found

    def _extending(
        self, rows: Sequence[tuple[int, ...]], known: Sequence[KVPrefix], nll: bool
    ) -> Callable[[int, int], list[KVPrefix]]:
        """What reads the rest of some of the rows."""

        def run(start: int, stop: int) -> list[KVPrefix]:
            before = known[start:stop]
            fresh = [row[len(prefix) :] for row, prefix in zip(rows[start:stop], before, strict=True)]
            prefix_length = [len(prefix) for prefix in before]
            last = None if nll else sorted({len(ids) - 1 for ids in fresh})
            got = self._run(before, range(len(before)), prefix_length, fresh, None, last)
            found = []
            for place, row, prefix, ids in zip(got.places, rows[start:stop], before, fresh, strict=True):
                size = len(ids)
                keys, values = (
                    tuple(
                        torch.cat([*([old[index]] if old else []), new[place[0], :, :size]], 1)
                        for index, new in enumerate(side)
                    )
                    for old, side in zip(
                        (prefix.keys, prefix.values), zip(*got.layers, strict=True), strict=True
                    )
                )
                columns = (
                    slice(size) if last is None else slice(last.index(size - 1), last.index(size - 1) + 1)
                )
                chances = at_least_float32(got.logits[place[0], columns]).log_softmax(-1)
                own = None
                if nll:
                    steps = (
                        chances if prefix.following is None else torch.cat([prefix.following[None], chances])
                    )
                    target = torch.tensor(row[len(prefix) or 1 :], device=chances.device)
                    fresh_nll = -steps[:-1].gather(1, target[:, None])[:, 0]
                    own = fresh_nll if prefix.nll is None else torch.cat([prefix.nll, fresh_nll])
                found.append(KVPrefix(row, keys, values, chances[-1].clone(), own))
            return found

        return run

    def _run(
        self,
        prefixes: Sequence[KVPrefix],
        prefix_index: Sequence[int],
        prefix_length: Sequence[int],
        fresh: Sequence[Sequence[int]],
        embeddings: Float[Tensor, "_ _ d"] | None,
        columns: Sequence[int] | None = None,
        wanted: Sequence[range] | None = None,
    ) -> _Run:
        """One forward pass over the new tokens of branches.

        Args:
            prefixes: what the branches go on from.
            prefix_index: for each branch the number of its prefix.
            prefix_length: for each branch how many tokens of the prefix it sees.
            fresh: for each branch its new tokens, at least one.
            embeddings: (branches, length, d) of the whole rows, or None to look the new tokens up.
            columns: the columns whose logits are wanted, if each branch is alone in its row; None for all.
            wanted: for each branch those of its new tokens whose logits are wanted; None for all.
        """
        device = _device(self.module)
        tree = self.mode == "tree"
        most = (64 if device.type == "cpu" else 256) if tree else 1
        packed = pack(prefix_index, [len(ids) for ids in fresh], most)
        width = max(sum(len(fresh[index]) for index in row) for row in packed)
        places = [(0, 0)] * len(fresh)
        ids = [[0] * width for _ in packed]
        positions = [[0] * width for _ in packed]
        branch = [[-1] * width for _ in packed]
        for number, row in enumerate(packed):
            column = 0
            for index in row:
                places[index] = number, column
                size = len(fresh[index])
                ids[number][column : column + size] = fresh[index]
                positions[number][column : column + size] = range(
                    prefix_length[index], prefix_length[index] + size
                )
                branch[number][column : column + size] = [index] * size
                column += size
        owner = torch.tensor(branch)
        longest = max(map(len, prefixes))
        seen = torch.tensor([*prefix_length, 0])
        kind = next(self.module.parameters()).dtype
        mask = (tree_mask(owner, seen, longest, kind) if tree else row_mask(owner, seen, longest)).to(device)
        cache = cache_behind(prefixes, [prefix_index[row[0]] for row in packed], longest, self.depth)
        where = torch.tensor(positions, device=device)
        keep = (
            {}
            if columns is None or not self.keeps_logits
            else {"logits_to_keep": torch.tensor(columns).to(device)}
        )
        replaced = None
        if embeddings is not None:
            replaced = embeddings[owner.clamp_min(0).to(device), where]
        looked_up = nullcontext() if replaced is None else embeddings_replaced(self.lookups, replaced)
        chosen = None
        if wanted is not None:
            pairs = zip(places, wanted, strict=True)
            at = [(row, column + step) for (row, column), steps in pairs for step in steps]
            chosen = torch.tensor(at, device=device).unbind(1)
        head = self.module.get_output_embeddings()  # type: ignore[operator]
        with looked_up, chosen_only(head, chosen, len(packed), width) as taken:
            output = self.module(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=mask,
                position_ids=where,
                past_key_values=cache,
                use_cache=True,
                **keep,
            )
        logits = output.logits
        if columns is not None and not keep:
            logits = logits[:, list(columns)]
        if chosen is not None:
            logits = logits[0] if taken else logits[chosen]
        return _Run(logits, places, [layer.new for layer in cache.layers])


def _device(module: nn.Module) -> torch.device:
    device: torch.device = next(module.parameters()).device
    return device
