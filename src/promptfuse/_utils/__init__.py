"""Small helpers that know nothing of models and texts; private to the package."""
