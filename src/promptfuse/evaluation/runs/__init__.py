"""Runs over data sets."""
