"""ToFi-ML: fundus photographs screened by counting their pieces and holes. Ahmed & Coskunuzer, MIUA 2023.

A photograph becomes four gray images (red, green, blue, their mean); each is filled from dark to bright in N = 100
steps, and after every step its connected components (beta_0) and holes (beta_1) are counted: 800 numbers, which boosted
trees, a forest or the nearest neighbors turn into a class. No gradient, no GPU, and every number can be read.

Departs from the paper: Betti curves without persistence diagrams, which are the same numbers (`topology`); splits are
stratified; selection, SMOTE and the k of kNN see training cases only (`screens`).
Shape letters: N cases, F features, T thresholds, L classes.
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from medray.data.cache import SampleCache
from medray.data.case import BadCase, Case, Source, Splits, Volume
from medray.data.fields import FileRef, case_fingerprint
from medray.data.sources import open_source
from medray.data.splits import folds_by_patient, split_by_patient
from medray.data.writers import beside, write_bytes
from medray.errors import UserError
from medray.figures.classification import bands_figure, confusion_figure, prediction_figure, roc_figure
from medray.figures.drawing import to_png
from medray.learner import seed_of
from medray.metrics.classification import confusion_matrix, multiclass_scores
from medray.system import (
    ClaimCheck,
    ClaimResult,
    Evaluation,
    Figure,
    Prediction,
    PredictRequest,
    Preset,
    Row,
    System,
    Trained,
    Variant,
    Workbench,
)
from medray.systems.claims import Arm, Scores, bound, difference, score_arms
from medray.systems.classification.labels import class_column, class_indices, class_names, unlabelled
from medray.systems.classification.screens import (
    Screen,
    ScreenConfig,
    fit_screen,
    load_screen,
    read_arrays,
    save_screen,
)
from medray.systems.classification.topology import betti_curves, own_grid, persistence_bars, silhouette

FloatArray = NDArray[np.float64]
CaseFeatures = tuple[tuple[str, ...], NDArray[np.float32]]
COLOR_MAX = 255.0
_CASES_PER_TASK = 16
_BINS = 256


@dataclass(frozen=True, kw_only=True)
class TofiConfig(ScreenConfig):
    """What is counted, and what learns from it."""

    channels: Literal["rgb_gray", "rgb", "gray"] = "rgb_gray"
    """Gray images that are filled (table 6); gray images have but their own."""
    dimensions: tuple[int, ...] = (0, 1)
    """What is counted: 0 connected components, 1 holes."""
    vector: Literal["betti", "silhouette", "histogram"] = "betti"
    """Features: Betti curves (paper), silhouettes, or histograms of 256 gray values, the peer without topology."""
    num_thresholds: int = 100
    """Steps from black to white, N."""
    grid: Literal["shared", "per_image"] = "shared"
    """Thresholds evenly over 0 to 255 (paper), or from each image's first birth to its last death (authors' code)."""
    gray: Literal["mean", "luma"] = "mean"
    """Gray as the mean of the colors (paper) or as luma (authors' code)."""
    silhouette_power: float = 1.0
    """Weight of a bar in a silhouette: its length to this power (paper: at most 1)."""
    resize: int = 0
    """Pixels of the longer side that images are scaled to; 0 leaves them as they are (paper). Counts grow with the
    pixels, so where the sizes differ between classes leave them to this, 512 for example."""
    per_megapixel: bool = False
    """Counts per million pixels in place of counts: the other remedy for different sizes."""
    folds: int = 5
    """Parts of the cross-validation on the training cases; 0 does none."""
    repeats: int = 1
    """Repetitions of it, each with other parts."""
    duplicate_tolerance: float = 0.01
    """Curves that differ by a smaller share of their area are taken for the same photograph: kept in one fold, and
    reported where one is in the test cases."""
    label: str = ""
    """Manifest column that holds the class; class, label, diagnosis or grade, or the folders' names, if left out."""
    test_fraction: float = 0.2
    """Share of the patients kept for testing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dimensions or not set(self.dimensions) <= {0, 1}:
            raise ValueError(f"dimensions are 0 (components), 1 (holes) or both, got {self.dimensions}")
        if self.num_thresholds < 2:
            raise ValueError(f"num_thresholds is at least 2, got {self.num_thresholds}")
        if self.folds < 0 or self.folds == 1 or self.repeats < 1:
            raise ValueError(f"folds is 0 or at least 2 and repeats at least 1, got {self.folds} and {self.repeats}")
        if self.vector == "silhouette" and self.grid == "per_image":
            raise ValueError("silhouettes are on the shared grid; use vector=betti with grid=per_image")
        if self.resize and self.resize < 16:
            raise ValueError(f"resize is 0 or at least 16 pixels, got {self.resize}")


# Features (sec. 4.1) -------------------------------------------------------------------------------------------------


def gray_images(volume: Volume, config: TofiConfig) -> dict[str, FloatArray]:
    """The gray images of a photograph, (H, W) each, 0 to 255.

    8-bit values are taken as they are; others are scaled from the image's own range. An image whose three colors are
    equal counts as gray.
    """
    array = volume.array
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        array = (array - low) * (COLOR_MAX / max(high - low, 1e-12))
    colors = array.astype(np.float64)
    if len(colors) == 1 or (colors == colors[:1]).all():
        return {"gray": _resized(colors[0], config.resize)}
    red, green, blue = (_resized(channel, config.resize) for channel in colors[:3])
    mean = (red + green + blue) / 3
    luma = np.floor(0.299 * red + 0.587 * green + 0.114 * blue + 0.5)
    gray = {"gray": luma if config.gray == "luma" else mean}
    if config.channels == "gray":
        return gray
    found = {"red": red, "green": green, "blue": blue}
    return found | gray if config.channels == "rgb_gray" else found


def _resized(image: FloatArray, longer_side: int) -> FloatArray:
    if not longer_side or max(image.shape) == longer_side:
        return image
    from skimage.transform import resize

    shape = tuple(max(1, round(length * longer_side / max(image.shape))) for length in image.shape)
    return np.asarray(resize(image, shape, anti_aliasing=True, preserve_range=True))


def fingerprint(volume: Volume, config: TofiConfig) -> dict[str, NDArray[np.float32]]:
    """The curves of a photograph by name, ``green_beta1`` for example, (T,) each; histograms (256,) by channel."""
    curves: dict[str, FloatArray] = {}
    for channel, image in gray_images(volume, config).items():
        if config.vector == "histogram":
            curves[f"{channel}_histogram"] = np.histogram(image, bins=_BINS, range=(0, 256))[0].astype(float)
            continue
        for dimension, curve in zip(config.dimensions, _curves(image, config), strict=True):
            curves[f"{channel}_beta{dimension}"] = curve * (1e6 / image.size if config.per_megapixel else 1.0)
    return {name: curve.astype(np.float32) for name, curve in curves.items()}


def thresholds(config: TofiConfig) -> FloatArray:
    """Gray values t_1 to t_N that all images share."""
    return np.linspace(0, COLOR_MAX, config.num_thresholds)


def _curves(image: FloatArray, config: TofiConfig) -> list[FloatArray]:
    if config.vector == "silhouette":
        bars = (persistence_bars(image, dimension) for dimension in config.dimensions)
        return [silhouette(one, thresholds(config), config.silhouette_power) for one in bars]
    if config.grid == "shared":
        both = betti_curves(image, thresholds(config))
    else:
        both = np.stack([betti_curves(image, grid)[k] for k, grid in enumerate(own_grid(image, config.num_thresholds))])
        both[:, -1] = 0  # the longest bar ends where its grid does
    return [both[dimension].astype(float) for dimension in config.dimensions]


def extract(config: TofiConfig, cache: SampleCache, cases: Sequence[Case]) -> list[CaseFeatures]:
    """Curve names and features (F,) of some cases. Runs as a Ray task."""
    settings = (config.channels, config.dimensions, config.vector, config.num_thresholds, config.grid, config.gray)
    more = (config.silhouette_power, config.resize, config.per_megapixel)
    found = []
    for case in cases:
        key = ("tofi", settings, more, case_fingerprint(case, ["image"]))
        curves = cache.get(key, functools.partial(_fingerprint_of, case, config))
        found.append((tuple(curves), np.concatenate(list(curves.values()))))
    return found


def _fingerprint_of(case: Case, config: TofiConfig) -> dict[str, NDArray[np.float32]]:
    return fingerprint(case.volume("image"), config)


def near_duplicates(features: NDArray[np.float32], others: NDArray[np.float32], tolerance: float) -> NDArray[np.bool_]:
    """Which rows have about the same curves: their difference is below ``tolerance`` of their own area.

    Turned and flipped copies of a photograph have exactly the same ones.

    Args:
        features: (N, F).
        others: (M, F).
        tolerance: 0 to 1.

    Returns:
        (N, M).
    """
    from sklearn.metrics import pairwise_distances

    area = np.abs(features).sum(axis=1)[:, None] + np.abs(others).sum(axis=1)[None]
    return np.asarray(pairwise_distances(features, others, metric="manhattan") * 2 <= tolerance * area)


# The system ----------------------------------------------------------------------------------------------------------

SMOKE: Mapping[str, Any] = {"num_trees": 30, "folds": 3}
PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        about="phantom of 200 photographs of 64 x 64 pixels; under half a minute",
        data="phantom:fundus?n=200&size=64&seed=0",
        config=SMOKE,
        compare=("gray", "knn", "histogram"),
    ),
    "demo": Preset(
        about="phantom of 600 photographs of 192 x 192 pixels, all feature blocks; some minutes",
        data="phantom:fundus?n=600&size=192&seed=0",
        config={"repeats": 2},
        compare=("all", "rgb", "gray", "beta1_gray", "knn", "forest", "per_image", "histogram"),
        seeds=5,
    ),
    "paper": Preset(
        about="the paper's settings on your own photographs; give --data",
        data="phantom:fundus?n=2000&size=384&seed=0",
        config={"repeats": 5},
        compare=("all", "rgb", "gray", "beta1_gray", "knn", "forest", "histogram"),
        seeds=10,
    ),
    "chest": Preset(
        about="gray radiographs of several classes of one size; give --data FOLDER, one folder per class; some minutes",
        data="",
        config={"repeats": 3},
        compare=("all", "per_image", "knn", "forest", "histogram"),
    ),
}
_NO_SELECTION: Mapping[str, Any] = {"select": False}
VARIANTS: Mapping[str, Variant] = {
    "selected": Variant(about="Betti curves of red, green, blue and gray, important ones selected, XGBoost (paper)"),
    "all": Variant(about="all 800 features (table 6)", config=_NO_SELECTION),
    "rgb": Variant(about="without gray, 600 features (table 6)", config={"channels": "rgb", **_NO_SELECTION}),
    "gray": Variant(about="gray alone, 200 features (table 6)", config={"channels": "gray", **_NO_SELECTION}),
    "beta1_gray": Variant(
        about="holes of gray alone, 100 features (table 6)",
        config={"channels": "gray", "dimensions": (1,), **_NO_SELECTION},
    ),
    "knn": Variant(about="nearest neighbors on all features (paper: glaucoma)", config={"classifier": "knn"}),
    "knn_30": Variant(about="30 neighbors, as the authors' code reports", config={"classifier": "knn", "knn_k": 30}),
    "forest": Variant(about="random forest of 300 trees", config={"classifier": "forest", "num_trees": 300}),
    "smote": Variant(about="rare classes filled up by SMOTE (paper: AMD)", config={"balance": "smote"}),
    "downsample": Variant(
        about="frequent classes thinned out, nearest neighbors (paper: glaucoma)",
        config={"balance": "downsample", "classifier": "knn"},
    ),
    "per_image": Variant(
        about="thresholds fitted to each image, as in the authors' code", config={"grid": "per_image"}
    ),
    "luma": Variant(about="gray as luma, as in the authors' code", config={"gray": "luma"}),
    "silhouette": Variant(about="silhouettes in place of Betti curves", config={"vector": "silhouette"}),
    "per_megapixel": Variant(about="counts per million pixels", config={"per_megapixel": True}),
    "resized": Variant(about="all images scaled to 256 pixels first", config={"resize": 256}),
    "histogram": Variant(about="histograms of the same channels, no topology", config={"vector": "histogram"}),
}


class TofiMl(System[TofiConfig]):
    """Topological fingerprints of photographs and boosted trees."""

    slug = "tofi_ml"
    config_class = TofiConfig
    predict_inputs = ("image",)
    predict_suffix = ".json"
    learning_signal = None
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """The photograph; its class is no file."""
        return ("image",)

    def expected_dims(self) -> int | None:
        """Photographs."""
        return 2

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Cases without a class, or with one that the model does not know."""
        column = known.get("column") or class_column(cases, self.config.label)
        return unlabelled(cases, column, known.get("classes", ()))

    def split(self, source: Source, seed: int) -> Splits:
        """By patient, every class with its share."""
        column = class_column(source.cases, self.config.label)
        class_names(source.cases, column)
        strata = {case.id: case.attributes[column] for case in source.cases}
        return split_by_patient(source.cases, validation=0.0, test=self.config.test_fraction, seed=seed, strata=strata)

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Fingerprints, cross-validation on the training cases, then one classifier on all of them."""
        config, cases = self.config, (*splits.train, *splits.validation)
        column = class_column(cases, config.label)
        names = class_names(cases, column)
        classes = np.array(class_indices(cases, column, names))
        curves, features = self._features(work, cases)
        same = near_duplicates(features, features, config.duplicate_tolerance)
        metrics = self._cross_validate(work, cases, features, classes, same)
        screen = fit_screen(config, features, classes, len(names), seed_of("screen", work.seed))
        metrics |= {"num_features": float(features.shape[1]), "num_selected": float(len(screen.columns))}
        metrics["num_near_duplicates"] = float((same.sum(axis=1) > 1).sum())
        if metrics["num_near_duplicates"]:
            work.say(f"{metrics['num_near_duplicates']:.0f} training cases have a near-duplicate; kept in one fold")
        folder = work.out / "model"
        files = {"classifier": save_screen(screen, folder), "training": folder / "training.npz"}
        np.savez_compressed(files["training"], allow_pickle=False, features=features, classes=classes)
        work.log(metrics, name="train")
        about = {
            "column": column,
            "classes": list(names),
            "curves": list(curves),
            "columns": screen.columns.tolist(),
            "num_neighbors": int(screen.model.n_neighbors) if screen.memory else 0,
        }
        return Trained(weights=None, about=about, metrics=metrics, files=files)

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Classify the cases; those that look like a training case are counted."""
        about, names = trained.about, trained.about["classes"]
        classes = np.array(class_indices(cases, about["column"], names))
        curves, features = self._features(work, cases, expected=about["curves"])
        probability = _screen(trained).probabilities(features)
        known = read_arrays(trained.files["training"])["features"]
        seen = [bool(same.any()) for same in near_duplicates(features, known, self.config.duplicate_tolerance)]
        rows: list[Row] = []
        for case, truth, scores, copy in zip(cases, classes, probability, seen, strict=True):
            guess = int(scores.argmax())
            row: Row = {"case": case.id, "true": names[truth], "predicted": names[guess]}
            rows.append(row | {"accuracy": float(guess == truth), "probability_of_truth": float(scores[truth])})
            if copy:
                rows[-1]["note"] = "near-duplicate of a training case"
        summary = multiclass_scores(classes, probability)
        summary |= {"probability_of_truth": float(probability[np.arange(len(cases)), classes].mean())}
        summary["num_seen_in_training"] = float(sum(seen))
        summary["selected_percent"] = 100 * len(about["columns"]) / features.shape[1]
        figures = self._figures(curves, features, classes, probability, names)
        return Evaluation(rows=rows, summary=summary, figures=figures)

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Classify one photograph.

        Writes the class and the probabilities as JSON, the curves as CSV, and a picture: the photograph, the
        probabilities, and its curves over those of the training classes.

        Raises:
            UserError: not a 2D image, gray where the model knows color or the other way round, another suffix.
        """
        about, path = trained.about, request.inputs[0]
        if request.out.suffix != ".json":
            raise UserError(f"--out {request.out}: name the result with the suffix .json")
        volume = FileRef(str(path)).load()
        if volume.spatial_dims != 2:
            raise UserError(f"{path} is a volume where a 2D image is expected")
        started = time.perf_counter()
        curves = fingerprint(volume, self.config)
        _check_curves(str(path), tuple(curves), about["curves"])
        probability = _screen(trained).probabilities(np.concatenate(list(curves.values()))[None])[0]
        seconds = time.perf_counter() - started
        scores = dict(zip(about["classes"], (float(p) for p in probability), strict=True))
        result = {"input": str(path), "class": max(scores, key=scores.__getitem__), "probabilities": scores}
        lines = [",".join(("position", *curves))]
        lines += [
            ",".join([str(i), *(f"{v:g}" for v in row)]) for i, row in enumerate(zip(*curves.values(), strict=True))
        ]
        files = {
            "result": write_bytes(request.out, (json.dumps(result, indent=1) + "\n").encode()),
            "curves": write_bytes(beside(request.out, "_curves.csv"), ("\n".join(lines) + "\n").encode()),
        }
        title = f"{path.name}: {result['class']} ({max(scores.values()):.2f})"
        picture = to_png(prediction_figure(volume.array, about["classes"], list(probability), title=title))
        files["picture"] = write_bytes(beside(request.out, "_overview.png"), picture)
        memory = read_arrays(trained.files["training"])
        bands = self._bands(about["curves"], memory["features"], memory["classes"], about["classes"], curves)
        files["curves_picture"] = write_bytes(beside(request.out, "_curves.png"), to_png(bands))
        return Prediction(
            files=files, metrics={f"probability_{name}": p for name, p in scores.items()}, seconds=seconds
        )

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[TofiConfig, str]:
        """What all arms of the claim share."""
        shared = claim_config(cls.presets[preset], preset)
        return TofiConfig(**shared), _DATA[preset]

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """See `run_claim`."""
        return run_claim(work, cls.presets[preset], preset)

    def _features(
        self, work: Workbench, cases: Sequence[Case], expected: Sequence[str] = ()
    ) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Names of the curves, and (N, F), of all cases, side by side where there are workers."""
        chunks = [cases[start : start + _CASES_PER_TASK] for start in range(0, len(cases), _CASES_PER_TASK)]
        found = work.map(functools.partial(extract, self.config, work.cache), chunks, name="features")
        parts = [part for chunk in found for part in chunk]
        for case, (names, _) in zip(cases, parts, strict=True):
            _check_curves(f"case {case.id}", names, expected or parts[0][0])
        return parts[0][0], np.stack([values for _, values in parts])

    def _cross_validate(
        self,
        work: Workbench,
        cases: Sequence[Case],
        features: NDArray[np.float32],
        classes: NDArray[np.int64],
        same: NDArray[np.bool_],
    ) -> dict[str, float]:
        """Mean and standard deviation over the folds of all repetitions; the folds run side by side."""
        config = self.config
        if not config.folds:
            return {}
        grouped = _grouped(cases, same)
        strata = {case.id: str(label) for case, label in zip(cases, classes, strict=True)}
        position = {case.id: index for index, case in enumerate(cases)}
        if (rarest := np.bincount(classes).min()) < config.folds:
            raise UserError(
                f"a class has {rarest} training cases, too few for {config.folds} folds; use --config.folds 0"
            )
        parts: list[tuple[int, NDArray[np.bool_]]] = []
        for repeat in range(config.repeats):
            for fold in folds_by_patient(grouped, config.folds, seed=seed_of(work.seed, repeat), strata=strata):
                held_out = np.zeros(len(cases), dtype=bool)
                held_out[[position[case.id] for case in fold]] = True
                parts.append((len(parts), held_out))
        score = functools.partial(_score_fold, config, features, classes, work.seed)
        found = work.map(score, parts, name="cross_validation")
        for scores in found:  # in the order of repetitions, then folds
            work.log({name: scores[name] for name in ("accuracy", "auc")}, name="fold")
        metrics: dict[str, float] = {}
        for name in ("accuracy", "auc"):
            values = [scores[name] for scores in found]
            metrics |= {f"cv_{name}_mean": float(np.nanmean(values)), f"cv_{name}_sd": float(np.nanstd(values, ddof=1))}
        return metrics

    def _figures(
        self,
        curves: Sequence[str],
        features: NDArray[np.float32],
        classes: NDArray[np.int64],
        probability: FloatArray,
        names: Sequence[str],
    ) -> list[Figure]:
        what = f"{self.config.vector}, {self.config.classifier}, {features.shape[1]} features"
        truth, shown = np.eye(len(names))[classes], slice(1, None) if len(names) == 2 else slice(None)
        roc = roc_figure(truth[:, shown], probability[:, shown], names[shown], title=what)
        counts = confusion_matrix(classes, probability.argmax(axis=1), len(names))
        tag = what.replace(", ", "_").replace(" ", "_")
        return [
            Figure(f"roc_{tag}", f"ROC curves on the test cases: {what}", to_png(roc)),
            Figure(
                f"confusion_{tag}",
                f"Test cases by true and predicted class: {what}",
                to_png(confusion_figure(counts, names)),
            ),
            Figure(
                f"curves_{tag}",
                "Median of each class and the band of the middle 40 % of its test cases",
                to_png(self._bands(curves, features, classes, names)),
            ),
        ]

    def _bands(
        self,
        curves: Sequence[str],
        features: NDArray[np.float32],
        classes: NDArray[np.int64],
        names: Sequence[str],
        one: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> Any:
        """Figure 5 of the paper, for every curve."""
        config = self.config
        x = np.arange(_BINS) if config.vector == "histogram" else thresholds(config)
        label = "gray value"
        if config.grid == "per_image":
            x, label = np.arange(config.num_thresholds), "step of the image's own range"
        parts = np.split(features, len(curves), axis=1)
        panels = {name.replace("_", " "): (x, part) for name, part in zip(curves, parts, strict=True)}
        own = {name.replace("_", " "): curve for name, curve in one.items()} if one else None
        return bands_figure(panels, classes, names, x_label=label, one=own)


def _screen(trained: Trained) -> Screen:
    about = trained.about
    path, num_classes = trained.files["classifier"], len(about["classes"])
    return load_screen(path, about["columns"], num_classes, num_neighbors=about["num_neighbors"])


def _check_curves(where: str, found: Sequence[str], expected: Sequence[str]) -> None:
    if list(found) == list(expected):
        return
    kinds = ["in color" if any(name.startswith("red") for name in names) else "gray" for names in (found, expected)]
    raise UserError(f"{where} is {kinds[0]}, while the images the model is trained on are {kinds[1]}")


def _grouped(cases: Sequence[Case], same: NDArray[np.bool_]) -> list[Case]:
    """The cases, near-duplicates as one patient's."""
    from scipy.sparse.csgraph import connected_components

    patients = np.array([case.patient for case in cases])
    _, groups = connected_components(same | (patients[:, None] == patients[None]), directed=False)
    return [Case(case.id, f"group{group}", case.fields) for case, group in zip(cases, groups, strict=True)]


def _score_fold(
    config: TofiConfig,
    features: NDArray[np.float32],
    classes: NDArray[np.int64],
    seed: int,
    part: tuple[int, NDArray[np.bool_]],
) -> dict[str, float]:
    """Fit on all but a fold and score on it. Runs as a Ray task."""
    number, held_out = part
    num_classes = int(classes.max()) + 1
    screen = fit_screen(config, features[~held_out], classes[~held_out], num_classes, seed_of("fold", seed, number))
    return multiclass_scores(classes[held_out], screen.probabilities(features[held_out]))


# The claim -----------------------------------------------------------------------------------------------------------

_ARMS = ("selected", "all", "gray", "beta1_gray", "histogram")
SELECTION_MARGIN = 0.01
_NUM_TURNED = 20
_TREES = {"smoke": 60, "demo": 100, "paper": 100}
_DATA = {
    "smoke": "phantom:fundus?n=200&size=64&seed={seed}",
    "demo": "phantom:fundus?n=600&size=96&seed={seed}",
    "paper": "phantom:fundus?n=2000&size=384&seed={seed}",
}


def claim_config(preset: Preset, name: str) -> dict[str, Any]:
    """Config fields that all arms share.

    Raises:
        UserError: the claim is not run at this preset.
    """
    if name not in _DATA:
        raise UserError(f"the claim runs on the phantom with --preset {', '.join(_DATA)}, not {name}")
    return {**preset.config, "num_trees": _TREES[name], "folds": 0}


def run_claim(work: Workbench, preset: Preset, name: str) -> ClaimResult:
    """Counting beats histograms where colors do not tell; turning changes nothing; color and selection do no harm."""
    base = claim_config(preset, name)
    arms = [Arm(name=arm, config=TofiConfig(**{**base, **VARIANTS[arm].config}), data=_DATA[name]) for arm in _ARMS]
    seeds = range(work.seed, work.seed + preset.seeds)
    scores = score_arms(work, TofiMl, arms, seeds=seeds)
    turned = [
        row for rows in work.map(functools.partial(turn_changes, _DATA[name]), seeds, name="turned") for row in rows
    ]
    checks = judge(scores, turned)
    cases = [{name: row[name] for name in ("variant", "seed", "case", "accuracy")} for row in scores.rows]
    means = [{name: value for name, value in row.items() if name != "accuracy"} for row in scores.summaries]
    return ClaimResult(checks=checks, rows=[*cases, *means, *turned])


def turn_changes(data: str, seed: int) -> list[Row]:
    """By how much any feature of some images changes at most when they are turned by 90 degrees or flipped."""
    rows: list[Row] = []
    for case in open_source(data.replace("{seed}", str(seed))).cases[:_NUM_TURNED]:
        volume = case.volume("image")
        reference = np.concatenate(list(fingerprint(volume, TofiConfig()).values()))
        change = 0.0
        for turns, flipped in itertools.product(range(4), (False, True)):
            array = np.rot90(volume.array[:, ::-1] if flipped else volume.array, turns, axes=(1, 2))
            features = np.concatenate(list(fingerprint(replace(volume, array=array), TofiConfig()).values()))
            change = max(change, float(np.abs(features - reference).max()))
        rows.append({"variant": "turned", "seed": seed, "case": case.id, "largest_change": change})
    return rows


def judge(scores: Scores, turned: Sequence[Row]) -> list[ClaimCheck]:
    """The inequalities of the card; those with "at least as" hold where the means are equal."""
    told = scores.summaries
    beats = "Betti curves beat histograms of the same channels where colors do not tell the classes apart"
    harmless = [
        difference(told, "auc", "all", "gray", statement="color adds: 800 features at least as good as gray's 200"),
        difference(told, "auc", "gray", "beta1_gray", statement="components add: at least as good as holes alone"),
    ]
    return [
        difference(told, "auc", "selected", "histogram", statement=beats),
        difference(scores.rows, "accuracy", "selected", "histogram", statement=beats),
        bound(turned, "largest_change", "turned", at_most=0.0, statement="turns and flips change no feature at all"),
        *(replace(check, held=check.value >= 0) for check in harmless),
        difference(
            scores.rows,
            "accuracy",
            "selected",
            "all",
            at_least=-SELECTION_MARGIN,
            statement=f"selection keeps the accuracy, up to {SELECTION_MARGIN} (ours; the paper gains 0.007 to 0.025)",
        ),
        bound(told, "selected_percent", "selected", at_most=25.0, statement="with less than a quarter of the features"),
    ]
