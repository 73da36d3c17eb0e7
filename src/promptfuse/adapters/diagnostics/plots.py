"""Plots of measurements as images for papers, by matplotlib, which the ``plot`` extra installs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptfuse._utils.atomic_files import check_target
from promptfuse.adapters.diagnostics.fidelity import FidelityReport
from promptfuse.errors import ConfigError


def check_plot(path: Path) -> None:
    """Check that a plot can be written, before the work for it is done.

    Args:
        path: the file: ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ConfigError: if matplotlib is missing, the folder does not exist, the name has another ending, or the
            file exists and is not a plot of promptfuse.
    """
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"{path}: a plot's name must end in .png, .svg or .pdf")
    check_target(path)
    _figure()


def plot_fidelity(report: FidelityReport, path: Path) -> None:
    """Draw a fidelity report as bars: a panel for each figure, a bar for each transport and probe.

    Args:
        report: the figures.
        path: the file: ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ConfigError: if matplotlib is missing, or the file cannot or must not be written.
        OSError: if writing fails.
    """
    check_plot(path)
    rows = report.rows()
    figures = [report.mean(*row) for row in rows]
    labels = [f"{transport}, {probe}" if probe else transport for transport, probe in rows]
    panels = {
        "Spearman's rho": [each.spearman for each in figures],
        "best 10 in 64": [each.recall_10_at_64 for each in figures],
        "best 10 in 256": [each.recall_10_at_256 for each in figures],
    }
    figure = _figure()(figsize=(11, 1.5 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        axis.barh(labels, values, color="#3b6ea5")
        axis.set_title(title)
        axis.set_xlim(min(0.0, *values), 1.0)
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    figure.suptitle(
        f"{report.model_a} to {report.model_b}: {report.texts} texts, {report.candidates} candidates each"
    )
    figure.savefig(path, dpi=120, metadata={"Creator": "promptfuse"})


def _figure() -> Any:
    """Matplotlib's figure class, which draws without a display."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "plots need matplotlib, which is not installed; run pip install 'promptfuse[plot]'"
        ) from None
    return Figure
