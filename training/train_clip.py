r"""Train mini-clip: an image-text dual encoder, causal text tower, fine-tuned MobileNetV2 tail.

    python -m training.cache_features --data DATA --work WORK
    python -m training.train_clip --data DATA --features WORK --work WORK/clip \
        --tokenizer src/promptfuse/mini/clip --out DIR

InfoNCE over captioned photos (two captions each) and labelled photos ("a photo of a goldfish"), with
photos of one class left out of each other's negatives. Captions are sometimes cut short, since the
search asks the model about the beginnings of captions.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerBase,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from training import data as sources
from training.common import Optimisers, Run, pad, rate, save_half, seed_everything, split_parameters
from training.opinions import choose
from training.vision import IMAGE_SIZE, from_tensorflow, tail_forward, tail_parameters

PHOTO_PREFIXES = ("a photo of", "an image of", "a picture of", "a close up of", "there is", "")


def build(weights: Path, tokenizer: PreTrainedTokenizerBase) -> VisionTextDualEncoderModel:
    """The untrained dual encoder around the ImageNet vision tower."""
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=1024,
        projection_dim=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        max_position_embeddings=48,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        attn_implementation="eager",
    )
    vision, text = from_tensorflow(weights), CLIPTextModel(text_config)
    # The joint configuration rebuilds both towers' configurations, so eager is asked for again.
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision.config, text.config, projection_dim=256, logit_scale_init_value=2.66
    )
    model = VisionTextDualEncoderModel(config, vision_model=vision, text_model=text)
    for module in model.text_model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    return model


class Captions:
    """Draws a text for a photo: clean, cut short, prefixed or with an opinion."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def vary(self, text: str, rng: random.Random) -> str:
        """One variant of a caption."""
        text = sources.clean_caption(text)
        if rng.random() < 0.10:
            text = choose(text, rng, rng.random() < 0.5) or text
        words = text.split()
        if rng.random() < 0.25 and len(words) > 4:
            words = words[: rng.randint(3, len(words) - 1)]
        elif rng.random() < 0.2:
            words = [word for word in words if rng.random() > 0.15] or words
        text = " ".join(words)
        if rng.random() < 0.1:
            text = f"{rng.choice(PHOTO_PREFIXES)} {text}".strip()
        return text.rstrip(".") if rng.random() < 0.2 else text

    def label(self, names: tuple[str, ...], rng: random.Random) -> str:
        """A caption for a class name; the most common name half of the time."""
        name = names[0] if rng.random() < 0.5 else rng.choice(names)
        article = "an" if name[0].lower() in "aeiou" else "a"
        text = f"{rng.choice(PHOTO_PREFIXES)} {article} {name}".strip()
        return text + "." if rng.random() < 0.5 else text

    def encode(self, texts: list[str]) -> Tensor:
        """(texts, longest) ids, right-padded with the end mark."""
        rows = self.tokenizer(texts, truncation=True, max_length=40)["input_ids"]
        return pad(rows, self.tokenizer.eos_token_id)


def text_features(model: VisionTextDualEncoderModel, ids: Tensor) -> Tensor:
    """Unit text features, (texts, 256)."""
    features = model.text_projection(model.text_model(input_ids=ids).pooler_output)
    return functional.normalize(features.float(), dim=-1)


def image_features(model: VisionTextDualEncoderModel, hidden: Tensor, drop: float = 0.0) -> Tensor:
    """Unit image features, (photos, 256), from cached activations."""
    pooled = functional.dropout(tail_forward(model.vision_model, hidden), drop, training=drop > 0)
    return functional.normalize(model.visual_projection(pooled).float(), dim=-1)


def contrast(texts: Tensor, images: Tensor, owner: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE.

    Args:
        texts: (T, d) unit features.
        images: (B, d) unit features.
        owner: (T,) index of each text's photo.
        same: (B, B) true where two photos may share a caption; those are no negatives.
        scale: inverse temperature.
    """
    logits = scale * texts @ images.T
    positive = functional.one_hot(owner, len(images)).bool()
    # -1e4 and not -inf: an excluded entry meets a target of zero, and 0 * inf is not a number.
    logits = logits.masked_fill(same[owner] & ~positive, -1e4)
    by_text = functional.cross_entropy(logits, owner)
    target = positive.T.float()
    by_image = -(target / target.sum(1, keepdim=True) * logits.T.log_softmax(dim=1)).sum(1).mean()
    return (by_text + by_image) / 2


@torch.inference_mode()
def retrieval(
    model: VisionTextDualEncoderModel, hidden: np.ndarray, captions: list[list[str]], coder: Captions
) -> dict[str, float]:
    """Text-to-image recall over photos (one view each) and all their captions."""
    device = model.logit_scale.device
    images = torch.cat(
        [
            image_features(model, torch.from_numpy(part.astype(np.float32)).to(device))
            for part in np.array_split(hidden, 16)
        ]
    )
    texts = [sources.clean_caption(text) for group in captions for text in group]
    owner = torch.tensor([index for index, group in enumerate(captions) for _ in group], device=device)
    features = torch.cat(
        [text_features(model, coder.encode(texts[i : i + 500]).to(device)) for i in range(0, len(texts), 500)]
    )
    scores = features @ images.T
    rank = (scores > scores.gather(1, owner[:, None])).sum(1)
    return {f"t2i_r{k}": round(float((rank < k).float().mean()), 4) for k in (1, 5, 10)}


@torch.inference_mode()
def zero_shot(
    model: VisionTextDualEncoderModel,
    hidden: np.ndarray,
    classes: list[str],
    target: list[int],
    coder: Captions,
) -> dict[str, float]:
    """Top-1 and top-5 accuracy with the prompt "a photo of a NAME"."""
    device = model.logit_scale.device
    images = torch.cat(
        [
            image_features(model, torch.from_numpy(part.astype(np.float32)).to(device))
            for part in np.array_split(hidden, 16)
        ]
    )
    prompts = [f"a photo of {'an' if name[0].lower() in 'aeiou' else 'a'} {name}" for name in classes]
    top = (images @ text_features(model, coder.encode(prompts).to(device)).T).topk(5).indices
    truth = torch.tensor(target, device=device)[:, None]
    return {
        "zero_shot_top1": round(float((top[:, :1] == truth).any(1).float().mean()), 4),
        "zero_shot_top5": round(float((top == truth).any(1).float().mean()), 4),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--photos", type=int, default=256, help="captioned photos a batch")
    parser.add_argument("--labelled", type=int, default=96, help="labelled photos a batch")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--vision-lr", type=float, default=1e-4)
    parser.add_argument("--drop", type=float, default=0.2)
    parser.add_argument("--every", type=int, default=100, help="steps between evaluations and checkpoints")
    parser.add_argument(
        "--validate", type=int, default=0, help="tune on the last N train photos instead of dev"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    seed_everything(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    model = build(args.data / "models/mobilenet_v2_imagenet/dequantised_f32.npz", tokenizer).to(args.device)
    model.vision_model.requires_grad_(False)
    tail = tail_parameters(model.vision_model)
    for parameter in tail:
        parameter.requires_grad_(True)
    matrices, embeddings, vectors = split_parameters(model.text_model, ("embedding",))
    groups = [
        {"params": embeddings, "weight_decay": 0.02},
        {"params": [*vectors, model.logit_scale], "weight_decay": 0.0},
        {"params": [model.visual_projection.weight, model.text_projection.weight], "weight_decay": 0.1},
        {"params": tail, "lr": args.vision_lr, "weight_decay": 0.02},
    ]
    optimisers = Optimisers(matrices, groups, lr=args.lr, weight_decay=0.1)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, {trained / 1e6:.2f}M trained",
        flush=True,
    )
    model.text_model.embeddings.register_forward_hook(
        lambda module, _, out: functional.dropout(out, args.drop / 2, training=module.training)
    )

    coder = Captions(tokenizer)
    train = [photo.captions for photo in sources.flickr8k(args.data, "train")]
    train_hidden = np.load(args.features / "flickr_train.npy", mmap_mode="r")
    if args.validate:
        held = range(len(train) - args.validate, len(train))
        check_captions, check_hidden = [list(train[index]) for index in held], train_hidden[held.start :, 0]
        train = train[: held.start]
    else:
        check_captions = [list(photo.captions) for photo in sources.flickr8k(args.data, "dev")]
        check_hidden = np.load(args.features / "flickr_dev.npy", mmap_mode="r")[:, 0]
    labelled = sources.labelled_photos(args.data)
    labelled_hidden = np.load(args.features / "labelled.npy", mmap_mode="r")
    names = sorted({photo.names for photo in labelled})
    number = {group: index for index, group in enumerate(names)}
    usable = [index for index, photo in enumerate(labelled) if not photo.held]
    held_rows = [index for index, photo in enumerate(labelled) if photo.held]
    held_names = sorted({labelled[index].names for index in held_rows})
    held_target = [held_names.index(labelled[index].names) for index in held_rows]

    run = Run(args.work)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    holder = nn.ModuleDict({"model": model, "average": average})
    start = run.resume(holder, optimisers).get("step", 0)
    views, started, total = train_hidden.shape[1], time.time(), 0.0
    order: list[int] = []
    for step in range(start, args.steps):
        rng, draw = random.Random(args.seed * 10**6 + step), np.random.default_rng((args.seed, step))
        if len(order) < args.photos:
            order = np.random.default_rng((args.seed, step, 1)).permutation(len(train)).tolist()
        photos, order = order[: args.photos], order[args.photos :]
        extra = [usable[index] for index in draw.integers(0, len(usable), args.labelled)]
        batch = [train_hidden[index, draw.integers(views)] for index in photos]
        batch += [labelled_hidden[index, 0] for index in extra]
        hidden = torch.from_numpy(np.stack(batch).astype(np.float32)).to(
            args.device, memory_format=torch.channels_last
        )
        texts = [coder.vary(text, rng) for index in photos for text in rng.sample(train[index], 2)]
        texts += [coder.label(labelled[index].names, rng) for index in extra]
        owner = torch.tensor(
            [*np.repeat(np.arange(len(photos)), 2), *range(len(photos), len(batch))], device=args.device
        )
        kind = torch.tensor(
            [*range(-len(photos), 0), *(number[labelled[index].names] for index in extra)], device=args.device
        )
        with torch.autocast(args.device.split(":")[0], dtype=torch.bfloat16):
            images = image_features(model, hidden, args.drop)
            features = text_features(model, coder.encode(texts).to(args.device))
        loss = contrast(features, images, owner, kind[:, None] == kind[None], model.logit_scale.exp())
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        optimisers.step(rate(step, args.steps, 100))
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6)
        average.update_parameters(model)
        total += float(loss.detach())
        if (step + 1) % 20 == 0:
            print(
                f"step {step + 1}/{args.steps} loss {float(loss.detach()):.3f}",
                f"{(time.time() - started) / (step + 1 - start):.2f} s a step",
                flush=True,
            )
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            final = average.module.eval()
            figures = retrieval(final, check_hidden, check_captions, coder)
            figures |= zero_shot(
                final, labelled_hidden[held_rows, 0], [group[0] for group in held_names], held_target, coder
            )
            run.log(
                {
                    "step": step + 1,
                    "loss": round(total / args.every, 4),
                    "scale": round(float(model.logit_scale.exp()), 2),
                    **figures,
                    "seconds": round(time.time() - started),
                }
            )
            total = 0.0
            run.save(holder, optimisers, {"step": step + 1})

    save_half(average.module, args.out)
    tokenizer.save_pretrained(args.out)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessorPil(
        size=size,
        resample=2,
        do_center_crop=False,
        do_convert_rgb=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(args.out)


if __name__ == "__main__":
    main()
