"""Kills runs at random moments and starts them again; run by test_run.py, or by hand with 20 kills.

    python tests/evaluation/runs/killing.py CONFIG.yaml FOLDER KILLS SEED   # 0 kills: only watch the memory

The run in FOLDER/killed is one command, started again after each SIGKILL until it ends by itself. Kills come
when a random number of lines is there, and a random moment later. Prints a JSON object: how many kills there
were, behind how many lines, and for each process its resident size in MiB at numbers of lines.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from promptfuse.evaluation.runs import load_run_config


def count(path: Path) -> int:
    """Lines of a file, whole or not."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def resident(process: int) -> int:
    """The resident size of a process in MiB; 0 if it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(sizes[0]) // 1024 if sizes else 0


def main() -> None:
    """See the module."""
    config, root, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    draw = random.Random(seed)
    photos = len(load_run_config(config).read().photos)
    behind = sorted(draw.sample(range(photos), kills))
    folder = root / "killed"
    lines = folder / "predictions.jsonl"
    command = [sys.executable, "-m", "promptfuse", "run", str(config), "--out", str(folder)]
    killed, sizes = [], []
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        samples: list[tuple[int, int]] = []
        while process.poll() is None:
            done = count(lines)
            if not samples or done >= samples[-1][0] + 8:
                samples.append((done, resident(process.pid)))
            if behind and done >= behind[0]:
                time.sleep(draw.uniform(0, 1))
                process.kill()
                process.wait()
                killed.append(count(lines))
                while behind and killed[-1] >= behind[0]:
                    behind.pop(0)
                # Those that were passed over are made up for further behind.
                missed = kills - len(killed) - len(behind)
                room = range(killed[-1] + 1, photos)
                behind = sorted({*behind, *draw.sample(room, min(missed, len(room)))})
                break
            time.sleep(0.05)
        sizes.append(samples)
        if process.returncode >= 0:
            break
    if process.returncode:
        sys.exit(process.returncode)
    found = {"kills": len(killed), "killed_behind": killed, "lines": count(lines), "resident": sizes}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
