"""Parquet tables, which pyarrow reads; it is imported only when there is one."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.columns import IMAGE_COLUMNS

_ROWS = 10_000
"""Rows that are Python objects at the same time."""


def is_parquet(data: bytes) -> bool:
    """Whether these are the bytes of a Parquet file."""
    return data[:4] == b"PAR1"


def parquet_records(data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet table with their places; columns with bytes, such as photos, are left out.

    Raises:
        ConfigError: if it cannot be read, or has its photos within itself.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError("is a Parquet table; pip install pyarrow, or save it as JSON lines") from None
    try:
        file = pq.ParquetFile(BytesIO(data))
        names = [field.name for field in file.schema_arrow if not _has_bytes(pa, field.type)]
        known = {str(name).strip().lower() for name in names}
        held = [name for name in file.schema_arrow.names if name not in names]
        if known.isdisjoint(IMAGE_COLUMNS) and held:
            raise ConfigError(f"the column {held[0]!r} holds the photos themselves; save them as files")
        number = 0
        for batch in file.iter_batches(_ROWS, columns=names):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", {str(key).strip().lower(): value for key, value in row.items()}
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"not a Parquet table that can be read ({str(error)[:80]!r})") from None


def _has_bytes(pa: Any, kind: Any) -> bool:
    """Whether values of a type hold bytes."""
    if pa.types.is_struct(kind):
        return any(_has_bytes(pa, kind.field(index).type) for index in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_bytes(pa, kind.value_type)
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )
