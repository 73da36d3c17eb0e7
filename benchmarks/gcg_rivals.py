"""The packages that ``benchmarks.single_model_gcg`` compares, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import platformdirs
import transformers

from promptfuse.models import CausalLM

ROOT = Path(__file__).parents[1]
RIVALS = {"nanogcg": "nanogcg==0.3.0", "tropt": "tropt==0.1.1"}
"""What is installed for each; its worker is ``NAME_worker.py``."""


def default_environments() -> Path:
    """Where the rivals' environments are kept."""
    root = os.environ.get("PROMPTFUSE_CACHE") or platformdirs.user_cache_dir("promptfuse")
    return Path(root).expanduser() / "environments"


def base_python(rival: str) -> str:
    """A Python that runs a rival: TROPT says 3.10, but as a default of a dataclass it needs 3.12's slices."""
    if rival != "tropt" or sys.version_info >= (3, 12):
        return sys.executable
    for name in ("python3.12", "python3.13"):
        found = shutil.which(name)
        if found and subprocess.run([found, "-c", "pass"], capture_output=True, check=False).returncode == 0:
            return found
    raise SystemExit("tropt needs Python 3.12 or 3.13; put one into PATH, or give --rivals nanogcg")


def make_environment(rival: str, folder: Path) -> Path:
    """The Python of an environment that has the rival, which is installed if it is not there."""
    package = RIVALS[rival]
    own = folder / package
    python = own / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    probe = [str(python), "-c", f"import {rival}"]
    if python.exists() and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return python
    print(f"installing {package} in {own}", file=sys.stderr)
    base = base_python(rival)
    subprocess.run([base, "-m", "venv", str(own)], check=True)
    # The tested torch, but the other transformers and what hangs on it.
    others = ("transformers", "tokenizers", "huggingface_hub")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as held:
        constraints = Path(held) / "constraints.txt"
        kept = [line for line in lines if line.partition("==")[0] not in others]
        constraints.write_text("\n".join(kept) + "\n", encoding="utf-8")
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([str(python), *install, "--constraint", str(constraints), package], check=True)
    return python


def save_checkpoint(lm: CausalLM, folder: Path) -> None:
    """Save a model in float32 so that old and new transformers read it alike, and texts as ours does.

    What our model reads before and after every text becomes the tokenizer's chat template.
    """
    lm.module.save_pretrained(folder)
    front = "".join(lm.tokenizer.convert_ids_to_tokens(list(lm.start.ids))) + lm.start.front
    end = lm.tokenizer.eos_token or lm.tokenizer.convert_ids_to_tokens(min(lm.end_ids))
    backend = type(lm.tokenizer.backend_tokenizer).from_str(lm.tokenizer.backend_tokenizer.to_str())
    # No begin-of-text token: rivals remove that from their templates, and from all turns of some chats.
    bare = json.loads(backend.to_str()) | {"post_processor": None}
    backend = type(backend).from_str(json.dumps(bare))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end, pad_token=end, model_max_length=lm.max_length
    )
    before, after = json.dumps(front, ensure_ascii=False), json.dumps(lm.closing, ensure_ascii=False)
    tokenizer.chat_template = f"{{{{ {before} + messages[0]['content'] + {after} }}}}"
    tokenizer.save_pretrained(folder)
    # Newer transformers write some settings as older ones do not read them.
    _change(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": tokenizer.chat_template},
    )
    rope = getattr(lm.module.config, "rope_parameters", None) or {}
    _change(folder / "config.json", {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {})


def _change(path: Path, more: dict[str, Any]) -> None:
    """Set some keys of a JSON file."""
    known = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(known | more), encoding="utf-8")


class Side:
    """One package in a process of its own.

    Args:
        process: the worker, which says first which versions it runs.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.versions = self._answer()

    def ask(self, **request: Any) -> Any:
        """Send a request and wait for what comes of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker has ended before it answered; see its messages above")
        return json.loads(line)


@contextmanager
def _side(python: str, worker: str, arguments: Sequence[str]) -> Iterator[Side]:
    """Start a worker."""
    command = [python, str(Path(__file__).with_name(worker)), *arguments]
    environment = {
        name: value for name, value in os.environ.items() if python == sys.executable or name != "PYTHONPATH"
    }
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=environment,
        )
        try:
            yield Side(process)
        except BaseException:
            messages.seek(0)
            print(messages.read()[-4000:], file=sys.stderr)
            raise
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()


@contextmanager
def sides(
    lm: CausalLM, name: str, rivals: Sequence[str], environments: Path, threads: int
) -> Iterator[dict[str, Side]]:
    """All packages on the same model, ``promptfuse`` first.

    Args:
        lm: the model, as ours reads it.
        name: its name or folder.
        rivals: of ``RIVALS``.
        environments: the folder of their environments.
        threads: of each process.
    """
    with ExitStack() as stack:
        worker = _side(sys.executable, "promptfuse_worker.py", [name, str(threads), lm.wanted_start])
        found = {"promptfuse": stack.enter_context(worker)}
        if rivals:
            checkpoint = stack.enter_context(tempfile.TemporaryDirectory())
            save_checkpoint(lm, Path(checkpoint))
        for rival in rivals:
            python = str(make_environment(rival, environments))
            found[rival] = stack.enter_context(
                _side(python, f"{rival}_worker.py", [checkpoint, str(threads)])
            )
        yield found
