"""Data sets, metrics, recipes and runs over data sets."""
