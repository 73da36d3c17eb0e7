"""One page about runs over a data set: tables, plots and a gallery."""

from promptfuse.report.runs.comparison import Comparison, compare
from promptfuse.report.runs.folders import Run, load_runs
from promptfuse.report.runs.judges import Judges, load_judges
from promptfuse.report.runs.measure import Measured, measure_runs

__all__ = ["Comparison", "Judges", "Measured", "Run", "compare", "load_judges", "load_runs", "measure_runs"]
