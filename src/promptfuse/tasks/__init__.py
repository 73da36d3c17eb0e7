"""Tasks: a few lines each over the layers below."""

from promptfuse.tasks.caption import Captioner, caption
from promptfuse.tasks.many import caption_all, caption_each, caption_many
from promptfuse.tasks.optimize import optimize

__all__ = ["Captioner", "caption", "caption_all", "caption_each", "caption_many", "optimize"]
