"""Search spaces with names: ``--space gamma3``. Each file says why it searches what it searches."""

from __future__ import annotations

from importlib import import_module

from medray.errors import UserError
from tuning.space import Space

_MODULES = {
    "gamma3": "gamma3",
    "gamma3_multi_label": "gamma3",
    "gamma3_multi_class": "gamma3",
    "gamma3_continuous": "gamma3",
    "blimsr_losses": "blimsr_losses",
    "suts_descent": "suts_descent",
    "goutallier_lr": "goutallier_lr",
    "axon_ppo": "axon_ppo",
    "axon_population": "axon_ppo",
}
NAMES = tuple(_MODULES)


def load_space(name: str) -> Space:
    """A search space by name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in NAMES:
        raise UserError(f"there is no space {name!r}; there are {', '.join(NAMES)}")
    space: Space = getattr(import_module(f"tuning.spaces.{_MODULES[name]}"), name.upper())
    return space
