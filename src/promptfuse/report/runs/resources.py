"""Files that the page is made of, beside what Python writes."""

from importlib.resources import files


def resource(name: str) -> str:
    """The text of a file of this folder."""
    return (files("promptfuse.report.runs") / name).read_text(encoding="utf-8")
