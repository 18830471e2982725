"""What starting costs: the modules a fresh interpreter has loaded when it answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import medray

LIBRARY = Path(medray.__file__).parents[1]
STAND_IN = str(Path(__file__).with_name("stand_in.py"))
JOBS = LIBRARY.parent / "jobs"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(LIBRARY), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        check=False,
    )


def test_list_is_instant() -> None:
    """It loads neither torch nor ray nor the parser, so it costs little more than the interpreter."""
    found = python(
        "import sys; from medray import cli; code = cli.main(['list']);"
        "heavy = {'torch', 'ray', 'numpy', 'tyro', 'monai'} & set(sys.modules);"
        "sys.exit(code or str(heavy) if heavy else code)"
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "suts" in found.stdout


def test_help_starts_no_ray_and_needs_no_monai() -> None:
    code = (
        "import importlib.util, sys; from medray import cli, registry;"
        f"spec = importlib.util.spec_from_file_location('medray_stand_in', {STAND_IN!r});"
        "m = sys.modules['medray_stand_in'] = importlib.util.module_from_spec(spec); spec.loader.exec_module(m);"
        "registry.ENTRIES = {'standin': m.ENTRY}; before = set(sys.modules);"
        "code = cli.run('standin', [*sys.argv[1:], '--help']);"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "heavy = new & {'ray', 'monai', 'scipy', 'pandas', 'matplotlib', 'tensorboard', 'SimpleITK'};"
        "sys.exit(str(heavy) if heavy else code)"
    )
    found = python(code)
    assert (found.returncode, found.stderr) == (0, "")
    assert "--config.grid-spacing" in found.stdout


@pytest.mark.skipif(not JOBS.is_dir(), reason="the jobs are not beside the library")
def test_a_job_finds_the_library_of_its_checkout(tmp_path: Path) -> None:
    """-S -E: no site-packages and no PYTHONPATH, so medray is not installed for this interpreter."""
    look = "import _path, medray, envs; print(medray.__file__, envs.__file__)"
    code = f"import sys; sys.path.insert(0, {str(JOBS)!r}); {look}"
    found = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    library, environments = map(Path, found.stdout.split())
    assert library.is_relative_to(LIBRARY)
    assert environments.is_relative_to(JOBS.parent)
