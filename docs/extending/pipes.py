"""A reader of data sets: lines of ``FILE | CAPTION``."""

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import Contents, Reader, Row, Source, readers


@readers.register("pipes")
class PipesReader(Reader):
    """A caption a line; a photo may have several."""

    about = "lines of FILE | CAPTION"

    def matches(self, source: Source) -> bool:
        return source.suffix == ".pipes"

    def read(self, source: Source, keep_rejected: bool) -> Contents:
        rows: dict[str, Row] = {}
        for number, line in enumerate(source.text.splitlines(), 1):
            file, bar, caption = (part.strip() for part in line.partition("|"))
            if not bar:
                raise ConfigError(f"line {number}: there is no '|'; write FILE | CAPTION")
            row = rows.setdefault(file, Row(place=f"line {number}", id=file, names=(file,), captions=[]))
            row.captions.append(caption)
        return Contents(list(rows.values()))
