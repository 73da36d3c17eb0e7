"""A mark for tests of how fast paths work, which PROMPTFUSE_FAST=0 turns off."""

import os

import pytest

needs_fast = pytest.mark.skipif(
    os.environ.get("PROMPTFUSE_FAST") == "0", reason="PROMPTFUSE_FAST=0 turns fast paths off"
)
