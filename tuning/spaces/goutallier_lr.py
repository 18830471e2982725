"""The learning rate of the Goutallier grader's classifier: the paper's only tuned setting, which found 1e-5.

Judged as the paper did, by what the folds hold out. Average precision tells settings apart where the ROC area is near 1.
"""

from tuning.space import Dimension, Space, Uniform

GOUTALLIER_LR = Space(
    system="goutallier",
    about="the classifier's learning rate, a factor of a hundred to each side of the paper's",
    dimensions=(Dimension("lr", Uniform(1e-7, 1e-3, log=True)),),
    objectives={"cv_average_precision": "max"},
)
