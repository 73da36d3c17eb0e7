"""Measure the embedded models as they ship, through the package's own loading.

    python -m training.evaluate --data DATA [--json]

Everything is measured on data that training never read: the dev splits of Flickr8k and SST-2, 300 photos of
COCO, photos of tiny-imagenet and of things that were held out, and SentiCap's val split beside plain captions
of the held photos. (mini-tone's one temperature was fitted on the last of these; it changes no verdict.)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from PIL import Image

from promptfuse.models import CausalLM, ImageTextModel, SequenceClassifier, load_image, load_model
from training import data as sources
from training.train_lm import evaluate as perplexity
from training.train_tone import LABELS, NEGATIVE, POSITIVE, calibration_error, caption_check
from training.train_tone import verdicts as verdicts_of
from training.variants import with_article

BATCH = 4
"""Photos read at once; on a CPU 64 take seven times as long each."""


@torch.inference_mode()
def text_features(model: ImageTextModel, texts: list[str]) -> torch.Tensor:
    """Unit features, (texts, d)."""
    return torch.cat(
        [model.text_features(model.encode(texts[i : i + 256])) for i in range(0, len(texts), 256)]
    )


@torch.inference_mode()
def image_features(model: ImageTextModel, paths: list[Path]) -> torch.Tensor:
    """Unit features, (photos, d)."""
    parts: list[list[Image.Image]] = [
        [load_image(path) for path in paths[i : i + BATCH]] for i in range(0, len(paths), BATCH)
    ]
    return torch.cat([model.image_features(part) for part in parts])


def retrieval(model: ImageTextModel, photos: list[sources.Photo], name: str = "") -> dict[str, float]:
    """Recall between photos and their captions, both ways; ``name`` stands before the figures' names."""
    images = image_features(model, [photo.path for photo in photos])
    texts = [sources.clean_caption(text) for photo in photos for text in photo.captions]
    owner = torch.tensor([index for index, photo in enumerate(photos) for _ in photo.captions])
    scores = text_features(model, texts) @ images.T
    rank = (scores > scores.gather(1, owner[:, None])).sum(1)
    best = torch.stack([scores[owner == index, index].max() for index in range(len(photos))])
    back = (scores > best[None]).sum(0)
    found = {f"{name}text_to_image_r{k}": float((rank < k).float().mean()) for k in (1, 5, 10)}
    return found | {f"{name}image_to_text_r{k}": float((back < k).float().mean()) for k in (1, 5, 10)}


def zero_shot(model: ImageTextModel, photos: list[sources.LabelledPhoto], name: str = "") -> dict[str, float]:
    """Accuracy on held photos with the prompt "a photo of a NAME"."""
    held = [photo for photo in photos if photo.held]
    classes = sorted({photo.names for photo in held})
    names = [group[0] for group in classes]
    prompts = [f"a photo of {with_article(name)}" for name in names]
    scores = image_features(model, [photo.path for photo in held]) @ text_features(model, prompts).T
    truth = torch.tensor([classes.index(photo.names) for photo in held])[:, None]
    top = scores.topk(5).indices
    return {
        f"{name}zero_shot_top1": float((top[:, :1] == truth).any(1).float().mean()),
        f"{name}zero_shot_top5": float((top == truth).any(1).float().mean()),
        f"{name}zero_shot_photos": len(held),
    }


@torch.inference_mode()
def log_probabilities(model: SequenceClassifier, texts: list[str]) -> torch.Tensor:
    """Of the labels ``negative``, ``neutral`` and ``positive``, (texts, 3)."""
    columns = [model.label_index(label) for label in LABELS.values()]
    parts = [model.log_probabilities(model.encode(texts[i : i + 256])) for i in range(0, len(texts), 256)]
    return torch.cat(parts)[:, columns]


def sentiment(model: SequenceClassifier, data: Path) -> dict[str, float]:
    """Accuracy on SST-2 dev, positive against negative, and of the three labels on captions."""
    pairs = sources.labelled_text(data / "text/sst2/dev.tsv")
    seen = " | ".join(text for text, _ in sources.labelled_text(data / "text/sst2/train.tsv"))
    found = log_probabilities(model, [text for text, _ in pairs])
    verdicts = (found[:, POSITIVE] > found[:, NEGATIVE]).tolist()
    right = [verdict == bool(truth) for verdict, (_, truth) in zip(verdicts, pairs, strict=True)]
    fresh = [
        ok for ok, (text, _) in zip(right, pairs, strict=True) if len(text.split()) >= 4 and text not in seen
    ]
    captions = caption_check(data)
    truths = [label for _, label in captions]
    logits = log_probabilities(model, [text for text, _ in captions])
    by_label = {
        f"captions_{name}": verdicts_of(
            logits[[x == label for x in truths]], [x for x in truths if x == label]
        )
        for label, name in LABELS.items()
    }
    return {
        "sst2_dev": sum(right) / len(right),
        "sst2_dev_phrases": len(right),
        "sst2_dev_unseen": sum(fresh) / len(fresh),
        "sst2_dev_unseen_phrases": len(fresh),
        "captions": verdicts_of(logits, truths),
        "captions_number": len(captions),
        **by_label,
        "captions_calibration_error": calibration_error(logits, truths),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    lm, clip, tone = load_model("mini-lm"), load_model("mini-clip"), load_model("mini-tone")
    assert isinstance(lm, CausalLM)
    assert isinstance(clip, ImageTextModel)
    assert isinstance(tone, SequenceClassifier)
    dev = [
        sources.clean_caption(text) for photo in sources.flickr8k(args.data, "dev") for text in photo.captions
    ]
    found: dict[str, float] = dict(perplexity(lm.module, lm.tokenizer, dev))
    found |= retrieval(clip, sources.flickr8k(args.data, "dev"))
    found |= retrieval(clip, sources.coco(args.data, "held"), "coco_")
    found |= zero_shot(clip, sources.labelled_photos(args.data))
    found |= zero_shot(clip, sources.objects(args.data), "things_") | sentiment(tone, args.data)
    for name, model in (("lm", lm), ("clip", clip), ("tone", tone)):
        found[f"parameters_{name}"] = sum(parameter.numel() for parameter in model.module.parameters())
    if args.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<26} {value:.4f}" if isinstance(value, float) else f"{name:<26} {value}")


if __name__ == "__main__":
    main()
