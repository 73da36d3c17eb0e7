"""Run the frozen head of the vision tower over all photos once, several views each.

    python -m training.cache_features --data DATA --work WORK

Views: 0 is the whole photo, 1 its mirror image, the rest are random crops (two fifths of the area or
more), mirrored half the time, with jitter of brightness, contrast and colour. Every view is squashed to a
square, as the model's processor squashes what it is given. Arrays of float16,
(photos, views, 160, 8, 8), one ``.npy`` a set; finished rows are counted in ``<set>.done``, so a
killed run goes on where it stopped. Views for training alone are computed in bfloat16, four times faster on
CPUs that have it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from training import data as sources
from training.vision import GRID, IMAGE_SIZE, Head, from_tensorflow

SIZE = (IMAGE_SIZE, IMAGE_SIZE)


def view(image: Image.Image, index: int, seed: int) -> Image.Image:
    """View number ``index`` of a photo, at the input size of the network."""
    if index < 2:
        image = image.resize(SIZE, Image.Resampling.BILINEAR) if image.size != SIZE else image
        return ImageOps.mirror(image) if index else image
    rng = np.random.default_rng((seed, index))
    width, height = image.size
    area, aspect = rng.uniform(0.4, 1.0), np.exp(rng.uniform(-0.25, 0.25))
    crop_width = int(min(width, width * np.sqrt(area * aspect)))
    crop_height = int(min(height, height * np.sqrt(area / aspect)))
    left = int(rng.integers(0, width - crop_width + 1))
    top = int(rng.integers(0, height - crop_height + 1))
    image = image.crop((left, top, left + crop_width, top + crop_height))
    image = image.resize(SIZE, Image.Resampling.BILINEAR)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.3))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.7, 1.3))
    image = ImageEnhance.Color(image).enhance(rng.uniform(0.6, 1.4))
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def pixels(images: list[Image.Image]) -> torch.Tensor:
    """Stack RGB images to (batch, 3, height, width) in [-1, 1]."""
    stacked = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return torch.from_numpy(stacked / 127.5 - 1.0).permute(0, 3, 1, 2)


def cache(
    head: Head, paths: list[Path], views: int, target: Path, device: str, batch: int, half: bool
) -> None:
    """Fill one array, resuming behind the rows that are already done; ``half`` for bfloat16 products."""
    done_file = target.with_suffix(".done")
    done = int(done_file.read_text()) if done_file.exists() else 0
    shape = (len(paths), views, 160, GRID, GRID)
    array = np.lib.format.open_memmap(
        target, mode="r+" if done else "w+", **({} if done else {"dtype": np.float16, "shape": shape})
    )
    if array.shape != shape:
        raise SystemExit(f"{target} has shape {array.shape}, wanted {shape}: delete it and run again")
    started, rows = time.time(), max(1, batch // views)
    for start in range(done, len(paths), rows):
        chunk = paths[start : start + rows]
        images = []
        for offset, path in enumerate(chunk):
            photo = Image.open(path).convert("RGB")
            images += [view(photo, index, start + offset) for index in range(views)]
        with torch.inference_mode(), torch.autocast(device.split(":")[0], torch.bfloat16, enabled=half):
            x = pixels(images).to(device).contiguous(memory_format=torch.channels_last)
            out = head(x).to(torch.float16).cpu().contiguous().numpy()
        array[start : start + len(chunk)] = out.reshape(len(chunk), views, 160, GRID, GRID)
        done_file.write_text(str(start + len(chunk)))
        if (start // rows) % 50 == 0:
            rate = (start + len(chunk) - done) * views / (time.time() - started)
            print(f"{target.stem}: {start + len(chunk)}/{len(paths)} photos, {rate:.0f} views/s", flush=True)
    array.flush()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--views", type=int, default=6, help="of each captioned photo")
    parser.add_argument("--label-views", type=int, default=2, help="of each photo of a thing")
    parser.add_argument("--sets", nargs="+", help="only these of the sets; for several processes")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    weights = args.data / "models" / "mobilenet_v2_imagenet" / "dequantised_f32.npz"
    head = Head(from_tensorflow(weights)).eval().to(args.device, memory_format=torch.channels_last)
    labelled = [photo.path for photo in sources.labelled_photos(args.data)]
    sets = {
        "flickr_dev": ([photo.path for photo in sources.flickr8k(args.data, "dev")], 1),
        "coco_held": ([photo.path for photo in sources.coco(args.data, "held")], 1),
        "captioned": ([photo.path for photo in sources.captioned(args.data)], args.views),
        "labelled": (labelled, 1),
        "objects": ([photo.path for photo in sources.objects(args.data)], args.label_views),
    }
    for name, (paths, views) in sets.items():
        if args.sets and name not in args.sets:
            continue
        # What is measured on is computed as the model will compute it; training bears the rounding.
        half = name not in ("flickr_dev", "coco_held")
        cache(head, paths, views, args.work / f"{name}.npy", args.device, args.batch, half)


if __name__ == "__main__":
    main()
