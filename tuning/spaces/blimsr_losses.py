"""The weights of BliMSR's generator loss, a factor of ten to each side of the paper's (Dey et al., MIUA 2023, eq. 6).

The perceptual term keeps its weight of 1, since only the ratios matter with Adam. Each weight may be 0 with
``config.lambda_grad=choice(0.0,0.1,1.0)``, for whether a term helps at all.
"""

from tuning.space import Dimension, Space, Uniform

BLIMSR_LOSSES = Space(
    system="blimsr",
    about="BliMSR's weights of the adversarial, content, gradient and dissimilarity terms; quality against perception",
    dimensions=(
        Dimension("lambda_adv", Uniform(1e-3, 1e-1, log=True)),
        Dimension("lambda_cont", Uniform(1e-2, 1.0, log=True)),
        Dimension("lambda_grad", Uniform(1e-1, 10.0, log=True)),
        Dimension("lambda_dssim", Uniform(1e-1, 10.0, log=True)),
    ),
    objectives={"psnr_db": "max", "perceptual_distance": "min"},
    set={"lambda_perc": "1.0"},  # presets of minutes leave it out
)
