"""How the axon tracker learns: PPO's step size, clipping and entropy bonus."""

from dataclasses import replace

from tuning.space import Dimension, Space, Uniform

AXON_PPO = Space(
    system="axon_tracker",
    about="the axon tracker's learning rate, clipping and entropy bonus",
    dimensions=(
        Dimension("lr", Uniform(5e-5, 2e-3, log=True)),
        Dimension("clip", Uniform(0.05, 0.4)),
        Dimension("entropy_coeff", Uniform(1e-4, 5e-2, log=True)),
    ),
    objectives={"coverage_pct": "max"},
    preset="smoke",
    scheduler="asha",
)
AXON_POPULATION = replace(
    AXON_PPO,
    about="the same by population-based training: the settings change as the trackers learn",
    scheduler="pbt",
    set={"evaluate_every_iterations": "4"},  # a comparison needs a measurement
)
