"""Tasks: a few lines each over the layers below."""

from promptfuse.tasks.caption import Captioner, caption
from promptfuse.tasks.caption_many import caption_many
from promptfuse.tasks.inversion import Inversion, invert
from promptfuse.tasks.invert_many import invert_many
from promptfuse.tasks.many import caption_all, caption_each
from promptfuse.tasks.optimize import optimize
from promptfuse.tasks.steering import Steer

__all__ = [
    "Captioner",
    "Inversion",
    "Steer",
    "caption",
    "caption_all",
    "caption_each",
    "caption_many",
    "invert",
    "invert_many",
    "optimize",
]
