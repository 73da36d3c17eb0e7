"""Training of the embedded mini models; not part of the installed package."""
