"""The tracker that the repository carries still does what its page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from medray.data.sources import open_source
from medray.engine.models import load_model
from medray.engine.workbench import InProcessWorkbench

MODEL = Path(__file__).parents[3] / "models" / "axon_tracker"


@pytest.mark.parametrize(
    ("setting", "coverage_pct", "error_px"), [("SI", 99, 0.3), ("SI-W", 99, 0.3), ("shifted", 90, 1)]
)
def test_follows_synthetic_axons(setting: str, coverage_pct: float, error_px: float, tmp_path: Path) -> None:
    system, trained, _ = load_model(MODEL, expect="axon_tracker")
    cases = open_source(f"phantom:axons?n=12&setting={setting}&seed=5").cases
    found = system.evaluate(InProcessWorkbench(tmp_path, quiet=True), trained, cases).summary
    assert found["coverage_pct"] > coverage_pct
    assert found["error_px"] < error_px


def test_is_small() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 12e6
