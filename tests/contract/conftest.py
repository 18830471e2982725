"""What the contract tests of a system share: its class, its smoke run, and its loops cut short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rehearsal import Rehearsal, Rehearsed

from medray import registry
from medray.data.sources import open_source
from medray.engine.options import RunOptions
from medray.engine.run import train
from medray.system import System

SLUGS = sorted(registry.ENTRIES)


@pytest.fixture(scope="session", params=SLUGS)
def slug(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def system(slug: str) -> type[System[Any]]:
    return registry.load(slug)


@pytest.fixture(scope="session")
def smoke(slug: str, system: type[System[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke preset trained to its end in this process; many tests look at what it left."""
    preset = system.presets["smoke"]
    options = RunOptions(
        data=preset.data, out=str(tmp_path_factory.mktemp("runs")), num_workers=0, compare=preset.compare
    )
    config = system.config_class(**preset.config)
    return train(slug, config, options, preset="smoke", variant=next(iter(system.variants))).path


@pytest.fixture(scope="session")
def rehearse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Rehearsed]:
    """Rehearses a system once, whoever asks."""
    done: dict[str, Rehearsed] = {}

    def get(slug: str) -> Rehearsed:
        if slug not in done:
            system = registry.load(slug)
            preset = system.presets["smoke"]
            made = system(system.config_class(**preset.config))
            source = open_source(preset.data, fields=made.field_kinds)
            cases = tuple(made.arrange(source.cases))
            splits = made.split(type(source)(source.spec, cases, source.fingerprint), seed=0)
            work = Rehearsal(tmp_path_factory.mktemp(f"rehearsal-{slug}"))
            made.train(work, splits)
            done[slug] = Rehearsed(made, splits, work.loops, work.policies)
        return done[slug]

    return get


@pytest.fixture(scope="session")
def rehearsed(slug: str, rehearse: Callable[[str], Rehearsed]) -> Rehearsed:
    return rehearse(slug)
