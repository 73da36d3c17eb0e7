"""Run the frozen head of the vision tower over all photos once, several views each.

    python -m training.cache_features --data DATA --work WORK

Views: 0 is the photo as it is, 1 its mirror image, the rest are random crops (half of the area or
more), mirrored half the time, with a little jitter of brightness and contrast. Arrays of float16,
(photos, views, 160, 6, 6), one ``.npy`` a set; finished rows are counted in ``<set>.done``, so a
killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from training import data as sources
from training.vision import IMAGE_SIZE, Head, from_tensorflow

SIZE = (IMAGE_SIZE, IMAGE_SIZE)


def view(image: Image.Image, index: int, seed: int) -> Image.Image:
    """View number ``index`` of a photo, at the input size of the network."""
    if index < 2:
        image = image.resize(SIZE, Image.Resampling.BILINEAR) if image.size != SIZE else image
        return ImageOps.mirror(image) if index else image
    rng = np.random.default_rng((seed, index))
    width, height = image.size
    area, aspect = rng.uniform(0.5, 1.0), np.exp(rng.uniform(-0.2, 0.2))
    crop_width = int(min(width, width * np.sqrt(area * aspect)))
    crop_height = int(min(height, height * np.sqrt(area / aspect)))
    left = int(rng.integers(0, width - crop_width + 1))
    top = int(rng.integers(0, height - crop_height + 1))
    image = image.crop((left, top, left + crop_width, top + crop_height))
    image = image.resize(SIZE, Image.Resampling.BILINEAR)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.2))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.8, 1.2))
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def pixels(images: list[Image.Image]) -> torch.Tensor:
    """Stack RGB images to (batch, 3, height, width) in [-1, 1]."""
    stacked = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return torch.from_numpy(stacked / 127.5 - 1.0).permute(0, 3, 1, 2)


def cache(head: Head, paths: list[Path], views: int, target: Path, device: str, batch: int) -> None:
    """Fill one array, resuming behind the rows that are already done."""
    done_file = target.with_suffix(".done")
    done = int(done_file.read_text()) if done_file.exists() else 0
    shape = (len(paths), views, 160, 6, 6)
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
        with torch.inference_mode():
            x = pixels(images).to(device).contiguous(memory_format=torch.channels_last)
            out = head(x).to(torch.float16).cpu().contiguous().numpy()
        array[start : start + len(chunk)] = out.reshape(len(chunk), views, 160, 6, 6)
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
    parser.add_argument("--views", type=int, default=6)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    weights = args.data / "models" / "mobilenet_v2_imagenet" / "dequantised_f32.npz"
    head = Head(from_tensorflow(weights)).eval().to(args.device, memory_format=torch.channels_last)
    labelled = [photo.path for photo in sources.labelled_photos(args.data)]
    sets = {
        "flickr_dev": ([photo.path for photo in sources.flickr8k(args.data, "dev")], 1),
        "flickr_train": ([photo.path for photo in sources.flickr8k(args.data, "train")], args.views),
        "labelled": (labelled, 1),
    }
    for name, (paths, views) in sets.items():
        cache(head, paths, views, args.work / f"{name}.npy", args.device, args.batch)


if __name__ == "__main__":
    main()
