"""One page about runs over a data set: tables, plots and a gallery."""

from promptfuse.evaluation.report.comparison import Comparison, compare
from promptfuse.evaluation.report.folders import Run, load_runs
from promptfuse.evaluation.report.judges import Judges, load_judges
from promptfuse.evaluation.report.measure import Measured, measure_runs

__all__ = ["Comparison", "Judges", "Measured", "Run", "compare", "load_judges", "load_runs", "measure_runs"]
