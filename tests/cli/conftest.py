"""A registered stand-in system and an engine that records what it is asked."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from medray import registry


@pytest.fixture(scope="session")
def stand_in() -> ModuleType:
    spec = importlib.util.spec_from_file_location("medray_stand_in", Path(__file__).with_name("stand_in.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["medray_stand_in"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _registered(stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ENTRIES", {**registry.ENTRIES, "standin": stand_in.ENTRY})


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Stands in for medray.engine.run; ``asked`` holds the arguments of its last call."""
    from medray.engine.rundir import RunDirectory

    fake = ModuleType("medray.engine.run")
    run = RunDirectory(tmp_path / "runs" / "standin" / "1")
    record = SimpleNamespace(asked=None, run=run, answer=None, module=fake)

    def verb(name: str) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            record.asked = SimpleNamespace(name=name, args=args, keywords=keywords)
            if isinstance(record.answer, BaseException):
                raise record.answer
            return record.run if record.answer is None else record.answer

        return call

    for name in ("train", "resume", "evaluate", "predict", "claim"):
        setattr(fake, name, verb(name))
    import medray.engine

    monkeypatch.setitem(sys.modules, "medray.engine.run", fake)
    monkeypatch.setattr(medray.engine, "run", fake, raising=False)
    return record
