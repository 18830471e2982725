"""Classifiers of tables of numbers: boosted trees, forests and nearest neighbors, fitted and kept without a pickle.

The methods are XGBoost's, scikit-learn's and imbalanced-learn's. What is here: selection and balancing see the cases
that are fitted alone, and a fitted classifier is a JSON or npz file. The forest is XGBoost's, since scikit-learn's can
only be pickled. Shape letters: N cases, F features, L classes.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medray.errors import UserError

FloatArray = NDArray[np.float64]
K_CANDIDATES = (1, 3, 5, 7, 9)


@dataclass(frozen=True, kw_only=True)
class ScreenConfig:
    """Which classifier, and what comes before it."""

    classifier: Literal["xgboost", "forest", "knn"] = "xgboost"
    """Boosted trees, a random forest, or nearest neighbors on standardized features."""
    num_trees: int = 100
    """Trees of the ensemble (XGBoost's default)."""
    max_depth: int = 6
    """Depth of the boosted trees (XGBoost's default); those of a forest have 12."""
    learning_rate: float = 0.3
    """Of the boosted trees (XGBoost's default)."""
    knn_k: int = 0
    """Neighbors; 0 chooses among 1, 3, 5, 7, 9 by cross-validation on the training cases."""
    select: bool = True
    """Keep the features whose importance to boosted trees is above the mean; not for nearest neighbors."""
    balance: Literal["none", "smote", "downsample"] = "none"
    """Training cases as they are, rare classes filled up by SMOTE, or as many of each class as of the rarest."""

    def __post_init__(self) -> None:
        if self.num_trees < 1 or self.max_depth < 1 or self.learning_rate <= 0 or self.knn_k < 0:
            raise ValueError(
                "num_trees and max_depth are at least 1, learning_rate is above 0 and knn_k not negative, got "
                f"{self.num_trees}, {self.max_depth}, {self.learning_rate:g} and {self.knn_k}"
            )


@dataclass(frozen=True)
class Screen:
    """A fitted classifier.

    Attributes:
        columns: positions of the features it looks at.
        num_classes: L.
        model: XGBoost's or scikit-learn's.
        memory: what nearest neighbors remember: standardized features, classes, and the means and deviations; or empty.
    """

    columns: NDArray[np.int64]
    num_classes: int
    model: Any
    memory: Mapping[str, NDArray[Any]]

    def probabilities(self, features: NDArray[np.float32]) -> FloatArray:
        """(N, L) for features (N, F)."""
        values = features[:, self.columns]
        if self.memory:
            values = (values - self.memory["mean"]) / self.memory["deviation"]
        found = np.asarray(self.model.predict_proba(values), dtype=float)
        if self.memory:  # classes that no neighbor can have are missing from its columns
            full = np.zeros((len(found), self.num_classes))
            full[:, self.model.classes_] = found
            return full
        return found


def fit_screen(
    config: ScreenConfig, features: NDArray[np.float32], classes: NDArray[np.int64], num_classes: int, seed: int
) -> Screen:
    """Select, balance and fit, all on these cases alone.

    Args:
        config: which classifier.
        features: (N, F).
        classes: (N,), each of ``num_classes`` at least once.
        num_classes: L.
        seed: of SMOTE, of sub-sampling and of the forest.
    """
    columns = np.arange(features.shape[1])
    if config.select and config.classifier != "knn":
        from sklearn.feature_selection import SelectFromModel

        selector = SelectFromModel(_trees(config, seed, boosted=True), threshold="mean")
        columns = selector.fit(features, classes).get_support(indices=True)
    values, classes = _balanced(config.balance, features[:, columns], classes, seed)
    if config.classifier == "knn":
        return _neighbors(config, columns, values, classes, num_classes)
    model = _trees(config, seed, boosted=config.classifier == "xgboost").fit(values, classes)
    return Screen(columns, num_classes, model, {})


def _trees(config: ScreenConfig, seed: int, *, boosted: bool) -> Any:
    xgboost = _import("xgboost")
    shared = {"n_estimators": config.num_trees, "random_state": seed % 2**31, "n_jobs": 1}
    if boosted:
        return xgboost.XGBClassifier(max_depth=config.max_depth, learning_rate=config.learning_rate, **shared)
    return xgboost.XGBRFClassifier(max_depth=12, subsample=0.8, colsample_bynode=0.1, **shared)


def _balanced(
    how: str, features: NDArray[np.float32], classes: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if how == "none":
        return features, classes
    rarest = int(np.bincount(classes).min())
    if how == "downsample":
        sampler = _import("imblearn.under_sampling").RandomUnderSampler(random_state=seed % 2**31)
    elif rarest < 2:
        raise UserError("SMOTE draws between two cases of a class, and a class has one training case; use balance none")
    else:
        sampler = _import("imblearn.over_sampling").SMOTE(random_state=seed % 2**31, k_neighbors=min(5, rarest - 1))
    values, resampled = sampler.fit_resample(features, classes)
    return np.asarray(values, dtype=np.float32), np.asarray(resampled)


def _neighbors(
    config: ScreenConfig,
    columns: NDArray[np.int64],
    values: NDArray[np.float32],
    classes: NDArray[np.int64],
    num_classes: int,
) -> Screen:
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    deviation[deviation == 0] = 1.0
    standardized = (values - mean) / deviation
    num_neighbors = config.knn_k or _best_k(standardized, classes)
    memory = {"features": standardized, "classes": classes, "mean": mean, "deviation": deviation}
    return _remembering(columns, num_classes, memory, num_neighbors)


def _remembering(
    columns: NDArray[np.int64], num_classes: int, memory: Mapping[str, NDArray[Any]], num_neighbors: int
) -> Screen:
    from sklearn.neighbors import KNeighborsClassifier

    if num_neighbors > len(memory["features"]):
        raise UserError(f"knn_k {num_neighbors} is more than the {len(memory['features'])} training cases")
    model = KNeighborsClassifier(num_neighbors).fit(memory["features"], memory["classes"])
    return Screen(columns, num_classes, model, memory)


def _best_k(features: NDArray[np.float32], classes: NDArray[np.int64]) -> int:
    """The k of the best accuracy in an inner cross-validation; the authors chose it on the test cases."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    parts = min(5, int(np.bincount(classes).min()))
    if parts < 2:
        return K_CANDIDATES[0]
    inner = StratifiedKFold(parts, shuffle=True, random_state=0)
    possible = [k for k in K_CANDIDATES if k <= len(classes) * (parts - 1) // parts]
    means = [cross_val_score(KNeighborsClassifier(k), features, classes, cv=inner).mean() for k in possible]
    return possible[int(np.argmax(means))]


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"this classifier needs {name.partition('.')[0]}; install it with `pip install medray[topology]`"
        ) from None


def save_screen(screen: Screen, folder: Path) -> Path:
    """Write trees as XGBoost's JSON, neighbors as arrays; never a pickle."""
    folder.mkdir(parents=True, exist_ok=True)
    if not screen.memory:
        screen.model.save_model(folder / "classifier.json")
        return folder / "classifier.json"
    np.savez_compressed(folder / "classifier.npz", allow_pickle=False, **screen.memory)
    return folder / "classifier.npz"


def load_screen(path: Path, columns: Sequence[int], num_classes: int, *, num_neighbors: int) -> Screen:
    """What `save_screen` wrote.

    Args:
        path: the file.
        columns: as of the `Screen`.
        num_classes: as of the `Screen`.
        num_neighbors: k where the file holds neighbors.

    Raises:
        UserError: it is damaged.
    """
    try:
        if path.suffix == ".npz":
            return _remembering(np.asarray(columns), num_classes, read_arrays(path), num_neighbors)
        model = _import("xgboost").XGBClassifier()  # reads forests too
        model.load_model(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read the classifier {path}: {str(error).splitlines()[0]}") from None
    return Screen(np.asarray(columns), num_classes, model, {})


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of an npz file."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
