"""Tasks: a few lines each over the layers below."""

from promptfuse.tasks.caption import Captioner, caption
from promptfuse.tasks.optimize import optimize

__all__ = ["Captioner", "caption", "optimize"]
