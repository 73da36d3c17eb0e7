"""Java programs that pycocoevalcap carries: is there a Java, and the Stanford tokenizer.

pycocoevalcap's own wrapper writes into its package folder, which may be read-only, loses captions when a text
has a line break of another kind than a line feed, and waits for ever. The jar and the arguments are the same.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from promptfuse.errors import ConfigError

TOKENIZER_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"


class JavaError(Exception):
    """A Java program that could not be run; the message is one line."""


def package_folder() -> Path:
    """Where pycocoevalcap is installed.

    Raises:
        ConfigError: if it is not.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise ConfigError(
            "BLEU, ROUGE-L, METEOR, CIDEr-D and SPICE need pycocoevalcap; pip install 'promptfuse[eval]'"
        )
    return Path(places[0])


def find_java() -> str | None:
    """The path of the ``java`` command; None where there is none."""
    return shutil.which("java")


def run_java(arguments: Sequence[str], *, seconds: float, folder: Path | None = None) -> str:
    """What a Java program writes to standard output.

    Args:
        arguments: what follows ``java``.
        seconds: after so long the program is killed.
        folder: where it is run.

    Raises:
        JavaError: if there is no Java, the program fails, or it takes too long.
    """
    java = find_java()
    if java is None:
        raise JavaError("no java command found; install a Java runtime, version 8 or later")
    try:
        done = subprocess.run(
            [java, *arguments], cwd=folder, capture_output=True, timeout=seconds, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise JavaError(f"java took more than {seconds:.0f} s and was stopped") from None
    except OSError as error:
        raise JavaError(f"{java} cannot be run ({error.strerror})") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise JavaError(f"java failed ({lines[0][:160] if lines else f'exit code {done.returncode}'})")
    return done.stdout.decode("utf-8", errors="replace")


def stanford_tokens(texts: Sequence[str]) -> list[list[str]]:
    """Penn-Treebank tokens in lower case, punctuation included.

    Args:
        texts: without line breaks of any kind.

    Raises:
        JavaError: if there is no Java, it fails, or it takes too long.
    """
    if not texts:
        return []
    jar = package_folder() / TOKENIZER_JAR
    with tempfile.TemporaryDirectory(prefix="promptfuse-") as folder:
        file = Path(folder) / "captions.txt"
        file.write_text("\n".join(texts), encoding="utf-8", errors="replace")
        arguments = ["-cp", str(jar), "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8"]
        arguments += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        output = run_java([*arguments, str(file)], seconds=60 + len(texts) / 100)
    lines = output.split("\n")
    # The last line has no line feed when it is empty.
    lines += [""] * (len(texts) - len(lines))
    if any(line.strip() for line in lines[len(texts) :]):
        raise JavaError(f"the tokenizer gave {len(lines)} lines for {len(texts)} captions")
    return [line.rstrip().split(" ") for line in lines[: len(texts)]]
