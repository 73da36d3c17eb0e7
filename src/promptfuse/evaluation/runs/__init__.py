"""Runs over data sets: resumable, on one machine or on a Ray cluster."""

from typing import TYPE_CHECKING

from promptfuse._utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from promptfuse.evaluation.runs.check import RunCheck, check_run
    from promptfuse.evaluation.runs.config import DatasetRunConfig, EngineSettings, load_run_config
    from promptfuse.evaluation.runs.manifest import Manifest, read_manifest
    from promptfuse.evaluation.runs.run import OnProgress, Progress, run_dataset

# Imported at first use: what a run left can be read without torch, which takes seconds to import.
_HOME = {
    "RunCheck": "check",
    "check_run": "check",
    "EngineSettings": "config",
    "DatasetRunConfig": "config",
    "load_run_config": "config",
    "Manifest": "manifest",
    "read_manifest": "manifest",
    "OnProgress": "run",
    "Progress": "run",
    "run_dataset": "run",
}

__all__ = [
    "DatasetRunConfig",
    "EngineSettings",
    "Manifest",
    "OnProgress",
    "Progress",
    "RunCheck",
    "check_run",
    "load_run_config",
    "read_manifest",
    "run_dataset",
]


__getattr__ = make_lazy_getattr(__name__, _HOME)
