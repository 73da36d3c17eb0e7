"""The beams of a search as a tree: which text came from which, and the path to the returned one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from promptfuse.report.document import render
from promptfuse.report.lettering import shorten, text_width
from promptfuse.report.search.changes import Piece, around, changed, compared
from promptfuse.search import Hypothesis, Result

MOST_ROWS = 200
"""Steps that are drawn; of more than that, evenly many and all in which the best text changed."""

GUTTER, ROW, CHIP, ROOM = 64, 46, 24, 985
NARROWEST, WIDEST = 150, 300
"""Pixels from one column to the next."""
LETTERS, DIGITS = 12, 11
"""Sizes of the letters of texts and of values, as in page.css."""


@dataclass(eq=False)
class Node:
    """A text in a step.

    Attributes:
        item: the text.
        row: number of the step; 0 is the start of the search.
        column: its rank among the beams; a text that left them as complete comes after the last.
        parent: what it was made from, or itself in an earlier step; None at the start.
        kept: whether it is the parent's text.
        complete: whether it became the best complete text in this step.
        won: whether it is on the path to the returned text.
    """

    item: Hypothesis
    row: int
    column: int
    parent: Node | None
    kept: bool = False
    complete: bool = False
    won: bool = False

    @property
    def around_change(self) -> bool:
        """Whether the text is shown around its change, rather than the change alone."""
        return bool(self.row and self.complete and self.item.parent)


class Chip(NamedTuple):
    """A node as it is drawn, in pixels; ``room`` is the width of its text."""

    node: Node
    left: int
    top: int
    width: int
    room: float
    hover: str
    value: str
    pieces: Sequence[Piece]


def build_tree(result: Result) -> list[list[Node]]:
    """The nodes of all steps, row by row; row 0 holds the texts that the search began with."""
    beams = max((len(step.beams) for step in result.history), default=1)
    roots: list[Node] = []
    rows = [roots]
    latest: dict[str, Node] = {}
    best = None
    for step in result.history:
        items = list(step.beams)
        done = step.best if step.best.text != best and (step.best.complete or not items) else None
        best = step.best.text
        if done is not None and done.text not in {item.text for item in items}:
            items.append(done)
        row = []
        for column, item in enumerate(items):
            before = latest.get(item.text)
            parent = before or latest.get(item.parent)
            if parent is None and step.number == 1:
                parent = next((root for root in roots if root.item.text == item.parent), None)
                if parent is None:
                    parent = Node(Hypothesis(item.parent, (), None), 0, len(roots), None)
                    roots.append(parent)
            ended = done is not None and item.text == done.text
            place = beams if ended and column == len(step.beams) else column
            row.append(Node(item, step.number, place, parent, before is not None, ended))
        latest |= {node.item.text: node for node in reversed(row)}
        rows.append(row)
    nodes = [node for row in rows for node in row if node.item.text == result.text]
    node = next((node for node in nodes if node.complete), nodes[0] if nodes else None)
    while node is not None:
        node.won, node = True, node.parent
    return rows


def winning_path(rows: Sequence[Sequence[Node]]) -> list[Node]:
    """The nodes on the path to the returned text, first to last."""
    return [node for row in rows for node in row if node.won]


def beam_tree(result: Result, listed: bool = True) -> Markup:
    """The tree as inline SVG; the full texts are shown on hover.

    Args:
        result: of the search.
        listed: whether a list of the texts on the path to the returned one follows.
    """
    rows = build_tree(result)
    shown = _shown(rows)
    place = {number: index for index, number in enumerate(shown)}
    nodes = [node for number in shown for node in rows[number]]
    columns = max(node.column for node in nodes) + 1
    column = min(WIDEST, max(NARROWEST, (ROOM - GUTTER) // columns))
    chips = {
        node: _chip(node, GUTTER + node.column * column, place[node.row] * ROW + 8, column - 12)
        for node in nodes
    }
    edges = []
    for node in nodes:
        parent = node.parent
        while parent is not None and parent.row not in place:
            parent = parent.parent
        if parent is not None:
            edges.append((chips[parent], chips[node]))
    return render(
        "tree.html",
        width=GUTTER + columns * column,
        height=len(shown) * ROW + 8,
        row_height=ROW,
        chip_height=CHIP,
        shown=shown,
        # The winning edges last, so that they lie on top.
        edges=sorted(edges, key=lambda edge: edge[1].node.won and edge[0].node.won),
        chips=chips.values(),
        stages=_stages(result, place),
        steps=len(rows) - 1,
        path=[node for node in winning_path(rows) if node.row and not node.kept] if listed else [],
        compared=compared,
    )


def _shown(rows: Sequence[Sequence[Node]]) -> list[int]:
    """The rows to draw."""
    if len(rows) <= MOST_ROWS:
        return list(range(len(rows)))
    every = -(-len(rows) // (MOST_ROWS // 2))
    events = [number for number, row in enumerate(rows) if any(node.complete for node in row)]
    return sorted({0, len(rows) - 1, *range(0, len(rows), every), *events[-(MOST_ROWS // 2) :]})


def _chip(node: Node, left: int, top: int, width: int) -> Chip:
    item = node.item
    if not node.row:
        return Chip(node, left, top, width, width - 16, item.text, "", _pieces(node, width - 16))
    value = f"{item.value:.3f}" if abs(item.value) < 1000 else f"{item.value:.4g}"
    # The value has a place of its own, and the text ends before it.
    room = width - 24 - text_width(value, DIGITS)
    terms = ", ".join(f"{name} {loss:.3f}" for name, loss in item.terms.items())
    hover = f"{item.text or '(nothing)'}\nvalue {item.value:.4f}; {terms}"
    return Chip(node, left, top, width, room, hover, value, _pieces(node, room))


def _pieces(node: Node, room: float) -> list[Piece]:
    """What is written on a node: a complete text around its change, of others the change alone."""
    item = node.item
    tick = "✓ " if node.complete else ""
    if node.around_change:
        room -= text_width(tick, LETTERS, True)
        return [Piece(tick), *around(compared(item.parent, item.text), room, LETTERS)]
    if node.complete or node.parent is None:
        label = item.text.strip() or "(nothing)"
    else:
        label = changed(node.parent.item.text, item.text)
    return [Piece(shorten(tick + label, room, LETTERS, True))]


def _stages(result: Result, place: Mapping[int, int]) -> list[tuple[int, str]]:
    """The rows in which the next method of a chain begins, with the method's name."""
    methods = result.config["method"].get("methods", [])
    return [
        (place[after.number], methods[after.stage - 1]["name"] if after.stage <= len(methods) else "")
        for before, after in pairwise(result.history)
        if after.stage != before.stage and after.number in place
    ]
