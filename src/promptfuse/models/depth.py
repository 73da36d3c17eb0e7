"""Pixels of more than eight bits, or of floating point, as eight bits.

Files rarely say where black and white are. What is meant is told from the values: a full scale that is
usual for their type, if they fill enough of it, and else their own range, so that nothing turns black.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOAT_SCALES = (1.0, 255.0, 65535.0)
"""White, by the usual scales of numbers with a fraction."""

_INTEGER_SCALES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""White, for 8, 10, 12, 14 and 16 bits; cameras and microscopes store 10 to 14 in 16."""

_OVERSHOOT = 0.05
"""How far filters push values of floating point beyond black and white, as a share of the scale."""

_FILLED = 0.125
"""The share of a scale that values must reach for it to be the one that is meant."""

_NO_DATA = 1e30
"""Numbers of this size and beyond stand for pixels without a value, as in files of measurements."""


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels as eight bits: 0 is black, 255 white.

    Args:
        values: truth values, integers or floats, of any shape. Eight unsigned bits are left as they are, NaN
            and negative infinity become black, infinity white.

    Raises:
        ValueError: if they are of another type, or none of them is a finite number.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iuf":
        raise ValueError(f"pixels of type {values.dtype} are not a brightness")
    black, white, numbers = _range(values)
    # In place: a photo of a hundred megapixels takes hundreds of megabytes for each copy.
    numbers -= np.float32(black)
    numbers *= np.float32(255 / (white - black))
    np.rint(np.clip(numbers, 0, 255, out=numbers), out=numbers)
    return numbers.astype(np.uint8)


def _range(values: NDArray[Any]) -> tuple[float, float, NDArray[np.float32]]:
    """Which values are black and white, and the values as a new array without gaps."""
    whole = values.dtype.kind != "f"
    if whole:
        low, high = float(values.min()), float(values.max())
        numbers = values.astype(np.float32)
    else:
        with np.errstate(over="ignore"):  # What no longer fits is no value.
            numbers = values.astype(np.float32)
        known = np.abs(numbers) < _NO_DATA  # false for NaN
        if not known.any():
            raise ValueError("no pixel has a finite value")
        low = float(numbers.min(where=known, initial=np.inf))
        high = float(numbers.max(where=known, initial=-np.inf))
        white = numbers == np.inf
        numbers[~known] = low
        numbers[white] = high
    slack = 0.0 if whole else _OVERSHOOT
    for scale in _INTEGER_SCALES if whole else _FLOAT_SCALES:
        if low < -slack * scale or high > (1 + slack) * scale:
            continue
        # Beyond eight bits there is room for values that all lie close together, as temperatures do.
        filled = high if scale <= 255 else min(high, high - low)
        if filled >= _FILLED * scale or high == low:
            return 0.0, scale, numbers
        break
    return (low, high, numbers) if high > low else (low - 1, low + 1, numbers)
