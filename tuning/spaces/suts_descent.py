"""How SUTS descends: scales and their control points, and smoothing (Blendowski and Heinrich, MIDL 2019, sec. 3)."""

from tuning.space import Choice, Dimension, Space, Uniform

SUTS_DESCENT = Space(
    system="suts",
    about="SUTS: number of scales and spacing of their control points, smoothness, step size",
    dimensions=(
        Dimension("grid_spacing", Choice(((20, 10, 7), (20, 10), (14, 7), (10, 7), (14,), (10,)))),
        Dimension("smooth_weights", Choice(((0.0,), (0.0125,), (0.03,), (0.06,)))),
        Dimension("grid_lr", Uniform(2e-3, 2e-2, log=True)),
    ),
    objectives={"dice": "max"},
    scheduler="asha",
    set={"smooth_weights": "0.03", "strides": "2"},  # one for all scales, as their number changes
)
