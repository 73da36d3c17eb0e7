"""The beams of a search as a tree: which text grew from which, and the way to the one that won."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from promptfuse.report.lettering import shorten, text_width
from promptfuse.report.plots import title
from promptfuse.report.search.changes import Piece, around, changed, compared
from promptfuse.search import Hypothesis, Result

MOST_ROWS = 200
"""Steps that are drawn; of more than that, evenly many and all in which the best text changed."""

GUTTER, ROW, CHIP, ROOM = 64, 46, 24, 985
NARROWEST, WIDEST = 150, 300
"""Pixels from one column to the next."""
LETTERS, DIGITS = 12, 11
"""Sizes of the letters of texts and of values, as page.css has them."""


@dataclass(eq=False)
class Node:
    """A text in a step.

    Attributes:
        item: the text.
        row: number of the step; 0 is where the search began.
        column: its rank among the beams; those that left them as complete stand behind the last.
        parent: what it was made from, or itself in an earlier step; None for a beginning.
        kept: whether it is the parent's text.
        complete: whether it became the best complete text in this step.
        won: whether it is on the way to the text that is returned.
    """

    item: Hypothesis
    row: int
    column: int
    parent: Node | None
    kept: bool = False
    complete: bool = False
    won: bool = False


def grow(result: Result) -> list[list[Node]]:
    """The nodes of all steps, row by row; row 0 holds what the search began with."""
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
                    beginning = Hypothesis(item.parent, (), None)
                    parent = Node(beginning, 0, len(roots), None)
                    roots.append(parent)
            ended = done is not None and item.text == done.text
            place = beams if ended and column == len(step.beams) else column
            row.append(Node(item, step.number, place, parent, before is not None, ended))
        latest |= {node.item.text: node for node in reversed(row)}
        rows.append(row)
    _mark(rows, result.text)
    return rows


def winning_path(rows: Sequence[Sequence[Node]]) -> list[Node]:
    """The nodes on the way to the text that is returned, from the beginning on."""
    return [node for row in rows for node in row if node.won]


def beam_tree(result: Result, listed: bool = True) -> str:
    """The tree as inline SVG; texts show in full when the mouse is over them.

    Args:
        result: of the search.
        listed: whether the texts on the way to the one that is returned are listed behind it.
    """
    rows = grow(result)
    shown = _shown(rows)
    place = {number: index for index, number in enumerate(shown)}
    columns = max(node.column for number in shown for node in rows[number]) + 1
    wide = min(WIDEST, max(NARROWEST, (ROOM - GUTTER) // columns))
    width, height = GUTTER + columns * wide, len(shown) * ROW + 8

    def left(node: Node) -> float:
        return GUTTER + node.column * wide

    def top(node: Node) -> float:
        return place[node.row] * ROW + 8

    edges, chips = [], []
    for number in shown:
        for node in rows[number]:
            parent = node.parent
            while parent is not None and parent.row not in place:
                parent = parent.parent
            if parent is not None:
                x1, y1 = left(parent) + 18, top(parent) + CHIP
                x2, y2 = left(node) + 18, top(node)
                bend = (y2 - y1) / 2
                edges.append(
                    (node.won and parent.won,
                     f'<path class="{_class(node.won and parent.won, "edge")}" d="M{x1:.0f} {y1:.0f} '
                     f'C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"/>')
                )  # fmt: skip
            chips.append(_chip(node, left(node), top(node), wide - 12))
    labels = [
        f'<text x="0" y="{index * ROW + 24}">{"start" if number == 0 else f"step {number}"}</text>'
        for index, number in enumerate(shown)
    ]
    # The winning edges last, so that they lie on top.
    lines = "".join(svg for _, svg in sorted(edges, key=lambda edge: edge[0]))
    left_out = len(rows) - len(shown)
    note = f" {left_out} of {len(rows) - 1} steps are not shown." if left_out else ""
    return (
        '<p class="legend">Each step\'s texts, best first: what each changed in the one that it came from, '
        "and its value. The way to the text that is returned is green; ✓ is a new best complete text, shown "
        f"around its change. Point at a text to read it in full.{note}</p>"
        f'<div class="scroll"><svg class="tree" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="Beams as a tree">'
        f"{_stages(result, place, width)}{''.join(labels)}{lines}{''.join(chips)}</svg></div>"
        f"{way(result) if listed else ''}"
    )


def _mark(rows: Sequence[Sequence[Node]], text: str) -> None:
    """Mark the way to a text, from its first appearance as a complete one."""
    nodes = [node for row in rows for node in row if node.item.text == text]
    node = next((node for node in nodes if node.complete), nodes[0] if nodes else None)
    while node is not None:
        node.won = True
        node = node.parent


def _shown(rows: Sequence[Sequence[Node]]) -> list[int]:
    """The rows to draw."""
    if len(rows) <= MOST_ROWS:
        return list(range(len(rows)))
    every = -(-len(rows) // (MOST_ROWS // 2))
    events = [number for number, row in enumerate(rows) if any(node.complete for node in row)]
    kept = events[-(MOST_ROWS // 2) :]
    return sorted({0, len(rows) - 1, *range(0, len(rows), every), *kept})


def _chip(node: Node, left: float, top: float, width: float) -> str:
    item = node.item
    value = f"{item.value:.3f}" if abs(item.value) < 1000 else f"{item.value:.4g}"
    value = value if node.row else ""
    # The value has a place of its own, and the text ends before it.
    taken = text_width(value, DIGITS) + 8 if value else 0.0
    room = width - 16 - taken
    tick = "✓ " if node.complete else ""
    terms = ", ".join(f"{name} {loss:.3f}" for name, loss in item.terms.items())
    hover = f"{item.text or '(nothing)'}\nvalue {item.value:.4f}; {terms}" if node.row else item.text
    # The text has a viewport of its own, which cuts it off in a font that is broader still.
    return (
        f'<g class="{_class(node.won, "kept" if node.kept else "chip")}">{title(hover)}'
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{CHIP}" rx="6"/>'
        f'<svg class="room" x="{left + 8:.0f}" y="{top:.0f}" width="{room:.0f}" height="{CHIP}">'
        f"{_text(node, tick, room)}</svg>"
        f'<text class="value" x="{left + width - 7:.0f}" y="{top + 16:.0f}" text-anchor="end">{value}</text>'
        "</g>"
    )


def _text(node: Node, tick: str, room: float) -> str:
    """What is written on a node: a complete text around its change, of others the change alone."""
    item = node.item
    if node.row and node.complete and item.parent:
        pieces = around(compared(item.parent, item.text), room - text_width(tick, LETTERS, True), LETTERS)
        return f'<text class="whole" x="0" y="16">{tick}{marked(pieces)}</text>'
    if node.row == 0 or node.complete or node.parent is None:
        label = item.text.strip() or "(nothing)"
    else:
        label = changed(node.parent.item.text, item.text)
    return f'<text x="0" y="16">{escape(shorten(tick + label, room, LETTERS, True))}</text>'


def marked(pieces: Sequence[Piece]) -> str:
    """Pieces as SVG, those that are new in bold."""
    return "".join(
        f'<tspan class="new">{escape(piece.text)}</tspan>' if piece.new else escape(piece.text)
        for piece in pieces
    )


def way(result: Result) -> str:
    """The texts on the way to the one that is returned as a list, each with what it changed in bold."""
    rows = []
    for node in winning_path(grow(result)):
        if node.row and not node.kept:
            words = "".join(
                f"<b>{escape(piece.text)}</b>" if piece.new else escape(piece.text)
                for piece in compared(node.item.parent, node.item.text)
            )
            rows.append(f"<li>{words} <small>step {node.row}, value {node.item.value:.3f}</small></li>")
    if not rows:
        return ""
    items = "".join(rows)
    return f"<details><summary>The way to the text, as a list</summary><ol>{items}</ol></details>"


def _class(won: bool, name: str) -> str:
    return f"{name} won" if won else name


def _stages(result: Result, place: dict[int, int], width: int) -> str:
    """A line where the next method of a chain takes over."""
    methods = result.config["method"].get("methods", [])
    found = []
    for before, after in pairwise(result.history):
        if after.stage != before.stage and after.number in place:
            y = place[after.number] * ROW - 5
            name = methods[after.stage - 1]["name"] if after.stage <= len(methods) else ""
            found.append(
                f'<path class="stage" d="M0 {y}H{width}"/>'
                f'<text class="stage" x="0" y="{y - 4}">{escape(name)}</text>'
            )
    return "".join(found)
