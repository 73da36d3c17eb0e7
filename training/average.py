"""Weights between two models of one training: the first, or its continuation, or what lies between or beyond.

    python -m training.average FIRST SECOND --share 0.5 --out DIR

Each weight is ``(1 - share) * first + share * second``. Weights of models that were trained on from one
another can be averaged, and the mean often does better than either on what training did not see (Wortsman et
al., 2022, arXiv 2109.01903). A share above 1 goes on in the direction that the second took.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"


def between(first: dict[str, Tensor], second: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights of the same names and shapes, in the first's types.

    Raises:
        SystemExit: if the two are not of one kind.
    """
    if {name: one.shape for name, one in first.items()} != {name: one.shape for name, one in second.items()}:
        raise SystemExit("the two models have other weights; give a model and its continuation")
    return {
        name: ((1 - share) * one.float() + share * second[name].float()).to(one.dtype)
        if one.is_floating_point()
        else one
        for name, one in first.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found = between(load_file(args.first / WEIGHTS), load_file(args.second / WEIGHTS), args.share)
    if args.out.resolve() != args.first.resolve():
        shutil.copytree(args.first, args.out, dirs_exist_ok=True)
    save_file(found, args.out / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
