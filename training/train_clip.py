r"""Train mini-clip: an image-text dual encoder, causal text tower, fine-tuned MobileNetV2 tail.

    python -m training.cache_features --data DATA --work WORK
    python -m training.teacher --data DATA --work WORK/teacher
    python -m training.train_clip --data DATA --features WORK --teacher WORK/teacher --work WORK/clip \
        --tokenizer MINI/clip --out DIR

InfoNCE over captioned photos (two captions each) and labelled photos ("a photo of a goldfish"), with
photos of one class left out of each other's negatives. Captions are sometimes cut short, since the
search asks the model about the beginnings of captions; each photo also chooses between its captions and one
with a wrong detail (``negatives.py``). Half of each target is a sentence encoder's opinion of which captions
fit which photos' captions; the text tower is distilled from it, also on texts without a photo and on damaged
ones, and the vision tower learns to foretell what it makes of a photo's captions.
"""

from __future__ import annotations

import argparse
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
from training.clip_batches import ClipBatches
from training.common import Optimisers, Run, pad, rate, save_half, seed_everything, split_parameters
from training.losses import contrast, likeness, same_neighbours
from training.variants import Captions, with_article
from training.vision import GRID, IMAGE_SIZE, from_tensorflow, tail_forward, tail_parameters


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


def pooled(
    model: VisionTextDualEncoderModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], chunk: int = 100
) -> Tensor:
    """The text tower's output, (texts, 256); texts of like lengths are read together.

    Lengths are multiples of four, since a product of a new shape takes oneDNN long to prepare.
    """
    rows = tokenizer(texts, truncation=True, max_length=40)["input_ids"]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found = []
    for start in range(0, len(order), chunk):
        ids = pad([rows[index] for index in order[start : start + chunk]], tokenizer.eos_token_id)
        ids = functional.pad(ids, (0, -ids.shape[1] % 4), value=tokenizer.eos_token_id)
        found.append(model.text_model(input_ids=ids.to(model.logit_scale.device)).pooler_output)
    return torch.cat(found)[torch.tensor(order).argsort().to(found[0].device)]


def project(model: VisionTextDualEncoderModel, pooled: Tensor) -> Tensor:
    """Unit text features from the text tower's output, (texts, 256)."""
    return functional.normalize(model.text_projection(pooled).float(), dim=-1)


def windows(hidden: Tensor, least: int, seed: int, step: int) -> Tensor:
    """A random part of each photo's activations: (photos, d, side, side) with the step's side.

    Args:
        hidden: (photos, d, side, side), cached activations.
        least: the smallest side of a part.
        seed: where chance comes from, with the step.
        step: number of the step.
    """
    draw, whole = np.random.default_rng((seed, step, 2)), hidden.shape[-1]
    side = int(draw.integers(min(least, whole), whole + 1))
    if side == whole:
        return hidden
    rows, columns = draw.integers(0, whole - side + 1, (2, len(hidden)))
    parts = [
        photo[:, row : row + side, column : column + side]
        for photo, row, column in zip(hidden, rows.tolist(), columns.tolist(), strict=True)
    ]
    return torch.stack(parts).contiguous(memory_format=torch.channels_last)


def seen(model: VisionTextDualEncoderModel, hidden: Tensor, drop: float = 0.0) -> Tensor:
    """The vision tower's output, (photos, 1280), from cached activations."""
    return functional.dropout(tail_forward(model.vision_model, hidden), drop, training=drop > 0)


def image_features(model: VisionTextDualEncoderModel, hidden: Tensor) -> Tensor:
    """Unit image features, (photos, 256), from cached activations."""
    return functional.normalize(model.visual_projection(seen(model, hidden)).float(), dim=-1)


@torch.inference_mode()
def retrieval(
    model: VisionTextDualEncoderModel,
    hidden: np.ndarray,
    captions: list[list[str]],
    tokenizer: PreTrainedTokenizerBase,
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
    features = project(model, pooled(model, tokenizer, texts))
    scores = features @ images.T
    rank = (scores > scores.gather(1, owner[:, None])).sum(1)
    return {f"t2i_r{k}": round(float((rank < k).float().mean()), 4) for k in (1, 5, 10)}


@torch.inference_mode()
def zero_shot(
    model: VisionTextDualEncoderModel,
    hidden: np.ndarray,
    classes: list[str],
    target: list[int],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, float]:
    """Top-1 and top-5 accuracy with the prompt "a photo of a NAME"."""
    device = model.logit_scale.device
    images = torch.cat(
        [
            image_features(model, torch.from_numpy(part.astype(np.float32)).to(device))
            for part in np.array_split(hidden, 16)
        ]
    )
    prompts = [f"a photo of {with_article(name)}" for name in classes]
    top = (images @ project(model, pooled(model, tokenizer, prompts)).T).topk(5).indices
    truth = torch.tensor(target, device=device)[:, None]
    return {
        "zero_shot_top1": round(float((top[:, :1] == truth).any(1).float().mean()), 4),
        "zero_shot_top5": round(float((top == truth).any(1).float().mean()), 4),
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=640)
    parser.add_argument("--photos", type=int, default=384, help="captioned photos a batch")
    parser.add_argument("--labelled", type=int, default=96, help="labelled photos a batch")
    parser.add_argument("--texts", type=int, default=160, help="texts without a photo a batch")
    parser.add_argument("--softness", type=float, default=0.5, help="the teacher's share of the targets")
    parser.add_argument("--likeness", type=float, default=1.0, help="weight of the teacher's features")
    parser.add_argument("--neighbours", type=float, default=0.5, help="weight of the teacher's neighbours")
    parser.add_argument("--foretold", type=float, default=1.0, help="weight of the same from photos")
    parser.add_argument("--wrong", type=int, default=128, help="photos that meet a wrong caption, a batch")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--image-lr", type=float, default=1.5e-3, help="of the projection of photos")
    parser.add_argument("--vision-lr", type=float, default=2e-4)
    parser.add_argument("--drop", type=float, default=0.3)
    parser.add_argument("--window", type=int, default=GRID - 2, help="the smallest side that is looked at")
    parser.add_argument("--init", type=Path, help="a folder with a model to take the text tower from")
    parser.add_argument("--both", action="store_true", help="take the vision tower from there too")
    parser.add_argument("--every", type=int, default=80, help="steps between evaluations and checkpoints")
    parser.add_argument(
        "--validate", type=int, default=0, help="tune on the last N train photos instead of dev"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train."""
    args = parse()
    seed_everything(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    model = build(args.data / "models/mobilenet_v2_imagenet/dequantised_f32.npz", tokenizer).to(args.device)
    if args.init is not None:
        before = VisionTextDualEncoderModel.from_pretrained(args.init).float()
        names = ("text_model", "text_projection", "vision_model", "visual_projection")
        for name in names if args.both else names[:2]:
            getattr(model, name).load_state_dict(getattr(before, name).state_dict())
        model.logit_scale.data.copy_(before.logit_scale.data)
    model.vision_model.requires_grad_(False).to(memory_format=torch.channels_last)
    tail = tail_parameters(model.vision_model)
    for parameter in tail:
        parameter.requires_grad_(True)
    batches = ClipBatches(
        args.data,
        args.features,
        args.teacher,
        Captions(),
        (args.photos, args.labelled, args.texts, args.wrong),
        args.validate,
        args.seed,
    )
    width = batches.rows.shape[1]
    head = nn.Linear(model.text_projection.in_features, width).to(args.device)
    eye = nn.Linear(model.visual_projection.in_features, width).to(args.device)
    matrices, embeddings, vectors = split_parameters(model.text_model, ("embedding",))
    groups = [
        {"params": embeddings, "weight_decay": 0.02},
        {"params": [*vectors, model.logit_scale], "weight_decay": 0.0},
        {"params": [model.text_projection.weight], "weight_decay": 0.1},
        {"params": [model.visual_projection.weight], "lr": args.image_lr, "weight_decay": 0.1},
        {"params": tail, "lr": args.vision_lr, "weight_decay": 0.02},
        {"params": [*head.parameters(), *eye.parameters()], "lr": args.image_lr, "weight_decay": 0.0},
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
    if args.validate:
        photos = sources.captioned(args.data)[-args.validate :]
        check_hidden = batches.hidden[len(batches.hidden) - args.validate :, 0]
    else:
        photos = sources.flickr8k(args.data, "dev")
        check_hidden = np.load(args.features / "flickr_dev.npy", mmap_mode="r")[:, 0]
    coco, coco_hidden = sources.coco(args.data, "held"), np.load(args.features / "coco_held.npy")[:, 0]
    held_rows = [index for index in range(batches.classes) if batches.labelled[index].held]
    held_names = sorted({batches.labelled[index].names for index in held_rows})
    held_target = [held_names.index(batches.labelled[index].names) for index in held_rows]

    run = Run(args.work)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    holder = nn.ModuleDict({"model": model, "average": average, "head": head, "eye": eye})
    start = run.resume(holder, optimisers).get("step", 0)
    started, total = time.time(), 0.0
    for step in range(start, args.steps):
        batch = batches(step, args.device)
        with torch.autocast(args.device.split(":")[0], dtype=torch.bfloat16):
            looks = seen(model, windows(batch.hidden, args.window, args.seed, step), args.drop)
            images = functional.normalize(model.visual_projection(looks).float(), dim=-1)
            hidden = pooled(model, tokenizer, [*batch.texts, *batch.wrong])
            features = project(model, hidden)
            predicted, foretold = head(hidden[: len(batch.texts)]), eye(looks)
        scale = model.logit_scale.exp()
        own, end = len(batch.owner), len(batch.texts)
        loss = contrast(
            features[:own],
            images,
            batch.owner,
            batch.kind[:, None] == batch.kind[None],
            scale,
            batch.teacher[:own] @ batch.photo_teacher.T,
            args.softness,
            (features[end:], batch.wrong_owner) if batch.wrong else None,
        )
        loss = loss + args.likeness * likeness(predicted, batch.teacher)
        loss = loss + args.foretold * likeness(foretold, batch.photo_teacher)
        loss = loss + args.neighbours * same_neighbours(features[:end], batch.teacher, scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in holder.parameters() if p.grad is not None], 1.0)
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
            figures = retrieval(final, check_hidden, [list(photo.captions) for photo in photos], tokenizer)
            on_coco = retrieval(final, coco_hidden, [list(photo.captions) for photo in coco], tokenizer)
            figures |= {f"coco_{name}": value for name, value in on_coco.items()}
            held = batches.labelled_hidden[held_rows, 0]
            figures |= zero_shot(final, held, [group[0] for group in held_names], held_target, tokenizer)
            run.log(
                {
                    "step": step + 1,
                    "loss": round(total / args.every, 4),
                    "scale": round(float(model.logit_scale.detach().exp()), 2),
                    **figures,
                    "seconds": round(time.time() - started),
                }
            )
            total = 0.0
            run.save(holder, optimisers, {"step": step + 1})
    save(average.module, args.tokenizer, args.out)


def save(model: VisionTextDualEncoderModel, tokenizer: Path, folder: Path) -> None:
    """Write the model as fp16 with its tokenizer and what it does to photos."""
    model.config.mirror_photos = True  # See ImageTextModel.
    save_half(model.to(memory_format=torch.contiguous_format), folder)
    # Read again, since one that has cut texts keeps the length that it cut them to.
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessorPil(
        size=size,
        resample=2,
        do_center_crop=False,
        do_convert_rgb=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(folder)


if __name__ == "__main__":
    main()
