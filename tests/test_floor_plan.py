from pathlib import Path

import promptfuse

ROOT = Path(promptfuse.__file__).parent

FOLDERS = {
    "_utils", "adapters", "cli", "config", "evaluation", "models", "objectives", "report", "search", "tasks",
    "text",
}  # fmt: skip
MODULES = {"__init__.py", "__main__.py", "errors.py", "testing.py", "tproduct.py", "version.py"}


def test_the_root_holds_the_public_face_and_the_folders_of_the_flow():
    assert {path.name for path in ROOT.glob("*.py")} == MODULES
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == FOLDERS


def test_every_folder_of_python_files_is_a_package():
    folders = {path.parent for path in ROOT.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
