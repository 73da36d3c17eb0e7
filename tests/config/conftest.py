"""The configuration that tests of the command line have too."""

from tests.cli.conftest import config

__all__ = ["config"]
