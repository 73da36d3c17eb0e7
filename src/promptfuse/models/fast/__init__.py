"""What only makes a forward pass faster; private to ``promptfuse.models``."""
