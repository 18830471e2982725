"""Structure that would otherwise only be noticed by its readers."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_import_contracts_hold() -> None:
    """Systems know no Ray and imports point one way (contracts in pyproject.toml)."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_platform_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    subprocess.run([sys.executable, "-c", "import platform; platform.python_version()"], cwd=ROOT, check=True)
