"""Searches from YAML files: what such a file may hold, checks, and the search that it describes."""

from promptfuse.config.check import check_config
from promptfuse.config.run import SearchConfig, load_config

__all__ = ["SearchConfig", "check_config", "load_config"]
