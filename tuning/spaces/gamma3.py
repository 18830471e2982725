"""How much M-VAAL's sampler learns from the second modality: gamma_3 of eq. 4 (Khanal et al., MIUA 2023, sec. 3.2).

The paper searched 0.2, 0.4, 0.8 and 1 for each task and found another best value for each. What is optimized is the
area under the curve of the task's metric over the number of labels.
"""

from dataclasses import replace

from tuning.space import Choice, Dimension, Space, Uniform

GAMMA3 = Space(
    system="mvaal",
    about="M-VAAL's weight of the second modality, the paper's grid: segmentation",
    dimensions=(Dimension("gamma_3", Choice((0.2, 0.4, 0.8, 1.0))),),
    objectives={"area_dice": "max"},
    sampler="grid",
    set={"repeats": "1"},  # seeds are the sweep's
)
GAMMA3_MULTI_LABEL = replace(
    GAMMA3,
    about="the same for several classes in an image",
    objectives={"area_mean_ap": "max"},
    preset="demo_multi_label",
)
GAMMA3_MULTI_CLASS = replace(
    GAMMA3, about="the same for one class per image", objectives={"area_accuracy": "max"}, preset="demo_chest"
)
GAMMA3_CONTINUOUS = replace(
    GAMMA3,
    about="the same between 0 (VAAL) and 2, for segmentation unless --preset and --metric say otherwise",
    dimensions=(Dimension("gamma_3", Uniform(0.0, 2.0)),),
    sampler="tpe",
)
