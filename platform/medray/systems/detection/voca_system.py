"""VOCA as a system: data, presets, variants, evaluation, prediction and the claim. The method itself is in `voca`."""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medray.data.case import BadCase, Case, Source, Splits
from medray.data.fields import FileRef, ref_to
from medray.data.pictures import rgb_pixels
from medray.data.points import POINT_FIELDS, point_outside, points_of
from medray.data.readers import read_volume, stem_of
from medray.data.sources import open_source
from medray.data.splits import split_by_patient
from medray.errors import UserError
from medray.metrics.detection import hits_in_order
from medray.nn.weights import load_network
from medray.storage import is_url
from medray.system import (
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
from medray.systems.claims import bound, difference
from medray.systems.detection.pictures import detection_figure
from medray.systems.detection.prediction import write_points
from medray.systems.detection.scoring import ScoredImage, summarize
from medray.systems.detection.voca import (
    CaseReader,
    Normalization,
    VocaConfig,
    VocaLearner,
    VocaNet,
    accumulate,
    find_peaks,
    predict_maps,
)

FOLD_1 = frozenset({
    *(6, 8, 10, 11, 13, 17, 18, 19, 20, 21, 23, 25, 26, 27, 28, 29, 32, 33, 39, 41, 42, 45, 46, 47, 48),
    *(49, 51, 53, 55, 56, 59, 60, 63, 65, 67, 69, 70, 75, 76, 78, 79, 84, 86, 87, 92, 93, 95, 96, 98, 100),
})  # fmt: skip
"""Image numbers of subsample 1 of CRCHistoPhenotypes (appendix A); the other 50 of 100 are subsample 2."""
_EXAMPLES = 2
_THRESHOLD_IMAGES = 16  # the threshold for new images is set on so many training images
_SMALL: Mapping[str, Any] = {
    "channels": (8, 16, 32, 64),
    "crop_px": 63,
    "optimizer": "adam",
    "learning_rate": 2e-3,
}
"""What runs of minutes share; Adam, since SGD at the paper's rate needs the paper's 30,000 updates."""


def pixel_sums(answer: Tensor, target: Tensor, config: VocaConfig) -> dict[str, tuple[float, float]]:
    """Sums and counts behind Acc (the mean of both recalls) and L_loc of table 1, of one image."""
    sums: dict[str, tuple[float, float]] = {}
    if config.target != "votes":
        return sums
    inside = target[0] > 0
    if "conf" in config.tasks:
        said = answer[0] > 0  # the logit of 0.5
        sums["foreground_recall"] = (float((said & inside).sum()), float(inside.sum()))
        sums["background_recall"] = (float((~said & ~inside).sum()), float((~inside).sum()))
    if "loc" in config.tasks:
        loss = F.smooth_l1_loss(answer[1:3], target[1:3], reduction="none").sum(0)
        sums["loc_loss"] = (float(loss[inside].sum()), float(inside.sum()))
    return sums


def score_case(
    config: VocaConfig, trained: Trained, numbered: tuple[int, Case], *, weighted: bool = True
) -> tuple[ScoredImage, Figure | None]:
    """Detect the nuclei of a case and compare; the first few cases get a picture. Runs as a Ray task."""
    index, case = numbered
    read = CaseReader(config, None)(case)
    answer = predict_maps(load_net(config, trained), read["pixels"], config, Normalization(**trained.about["known"]))
    accumulator = accumulate(answer, config, weighted=weighted)
    started = time.process_time()
    found = find_peaks(accumulator, config)
    scored = ScoredImage(
        case=case.id,
        detected=found.points,
        scores=found.scores,
        reference=read["points"],
        hits=hits_in_order(found.points, found.scores, read["points"], config.hit_px),
        positive_pixels=int((accumulator > 0).sum()),
        num_pixels=accumulator.size,
        nms_s=time.process_time() - started,
        pixel_sums=pixel_sums(answer, torch.from_numpy(read["target"]), config),
    )
    if index >= _EXAMPLES or not weighted:
        return scored, None
    name = "PR" if config.target == "peaks" else "+".join(config.tasks)
    kept = found.points[found.scores >= trained.about["threshold"]]
    maps = {"accumulator": accumulator} if config.target == "votes" else {"peak map": accumulator}
    if "conf" in config.tasks and config.target == "votes":
        maps = {"confidence": answer[0].sigmoid().numpy(), **maps}
    caption = f"{case.id}, {name}: {len(kept)} detected, {len(read['points'])} annotated"
    png = detection_figure(read["pixels"], maps, kept, read["points"], title=caption)
    return scored, Figure(f"{name.replace('+', '_').lower()}_{index}", caption, png)


def load_net(config: VocaConfig, trained: Trained) -> VocaNet:
    """The trained network, ready to predict."""
    network = VocaNet(config)
    assert trained.weights is not None
    load_network(network, trained.weights, prefix="net.")
    return network.eval()


class Voca(System[VocaConfig]):
    """Nuclei of histology images as a list of points."""

    slug = "voca"
    config_class = VocaConfig
    predict_inputs = ("image",)
    predict_suffix = ".csv"
    empty_labels = True  # tiles without a nucleus
    presets: ClassVar[Mapping[str, Preset]] = {
        "smoke": Preset(
            about="phantom tiles of 191 px, half a minute",
            data="phantom:nuclei?n=6&size=191&seed=0",
            config={**_SMALL, "num_epochs": 2},
            compare=("voca_nw", "pr"),
        ),
        "demo": Preset(
            about="phantom tiles of 255 px, crops of 127 px, 768 updates each; about ten minutes on 2 cores",
            data="phantom:nuclei?n=12&size=255&seed=0",
            config={
                **_SMALL,
                "channels": (16, 32, 64, 128),
                "crop_px": 127,
                "num_epochs": 12,
                "lr_decay_epochs": 8,
            },
            compare=("voca_nw", "pr"),
        ),
        "paper": Preset(
            about="the paper's sizes and schedule; on CRCHistoPhenotypes with --data FOLDER --config.fold 1",
            data="phantom:nuclei?n=100&size=500&seed=0",
            compare=("voca_nw", "conf", "pr"),
        ),
        "nuclei": Preset(
            about="fluorescence or stained tiles with instance maps; give --data FOLDER; some minutes",
            data="",
            config={
                **_SMALL,
                "channels": (16, 32, 64, 128),
                "crop_px": 127,
                "crop_stride_px": 43,
                "normalize": "image",
                "num_epochs": 4,
                "lr_decay_epochs": 3,
            },
            compare=("pr",),
        ),
    }
    variants: ClassVar[Mapping[str, Variant]] = {
        "voca": Variant(about="the paper's method"),
        "voca_nw": Variant(about="without weights: Conf and Loc only (table 2)", config={"tasks": ("conf", "loc")}),
        "conf": Variant(about="Conf only (table 1); its map is the accumulator", config={"tasks": ("conf",)}),
        "loc": Variant(about="Loc only (table 1); every pixel has one vote", config={"tasks": ("loc",)}),
        "pr": Variant(about="peak regression on the same network (sec. 5.2)", config={"target": "peaks"}),
        "no_skips": Variant(about="encoder and decoder not connected", config={"skips": False}),
        "wt_foreground": Variant(about="Wt learned on foreground pixels only", config={"wt_everywhere": False}),
        "bilinear": Variant(about="votes shared between four pixels", config={"splat": "bilinear"}),
        "conf_gate": Variant(about="only pixels with Conf above 0.5 vote", config={"conf_threshold": 0.5}),
    }

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """Images and, to train or to be scored, points in whatever form."""
        form = next((name for name in POINT_FIELDS if any(name in case.fields for case in cases)), "points")
        return ("image", form)

    def expected_dims(self) -> int:
        """Pictures."""
        return 2

    def arrange(self, cases: Sequence[Case]) -> Sequence[Case]:
        """Lists of points beside the images or in a folder ``points`` belong to their images."""
        return [with_points_beside(case) for case in cases]

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Points outside the image, images that are no pictures, and images smaller than a training crop."""
        found = []
        for case in cases:
            try:
                shape = rgb_pixels(case.volume("image")).shape[:2]
                reason = point_outside(points_of(case), shape)
            except UserError as error:
                shape, reason = (), str(error)
            if not reason and not known and min(shape) < self.config.crop_px:
                reason = (
                    f"its image of {shape[1]} x {shape[0]} px is smaller than a training crop of "
                    f"{self.config.crop_px} px; lower --config.crop-px"
                )
            if reason:
                found.append(BadCase(case.id, reason))
        return found

    def split(self, source: Source, seed: int) -> Splits:
        """By patient, or by the paper's two subsamples."""
        if self.config.fold:
            return paper_fold(source.cases, self.config.fold)
        validation, test = self.config.validation_fraction, self.config.test_fraction
        return split_by_patient(source.cases, validation=validation, test=test, seed=seed)

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Learn the maps, then find the score from which on a peak is a nucleus."""
        config = self.config
        known, shapes = survey(splits.train, CaseReader(config, work.cache))
        fit = work.fit(
            functools.partial(VocaLearner, config, splits.train, shapes, known, splits.validation, work.cache)
        )
        trained = Trained(weights=fit.weights, about={"known": asdict(known), "threshold": 0.0})
        # The paper takes the threshold of best F1 on the test images; new images need one that is known before.
        held_out = splits.validation or splits.train[:_THRESHOLD_IMAGES]
        scored = work.map(
            functools.partial(score_case, config, trained), [(_EXAMPLES, c) for c in held_out], name="cut"
        )
        threshold = summarize([image for image, _ in scored], config.hit_px).threshold
        about = {**trained.about, "threshold": threshold if math.isfinite(threshold) else 1.0}
        return Trained(weights=fit.weights, about=about, metrics=fit.metrics, fits={"train": fit})

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Table 1 and 2: at the threshold of best F1 on these cases as in the paper, and F1 at the model's own."""
        scored = work.map(functools.partial(score_case, self.config, trained), list(enumerate(cases)), name="evaluate")
        images = [image for image, _ in scored]
        best = summarize(images, self.config.hit_px)
        own = summarize(images, self.config.hit_px, trained.about["threshold"])
        for row, other in zip(best.rows, own.rows, strict=True):
            row.update({f"{name}_own_threshold": other[name] for name in ("f1", "detected") if name in other})
        summary = {**best.summary, "threshold": best.threshold, "f1_own_threshold": own.summary.get("f1", 0.0)}
        return Evaluation(best.rows, summary, [figure for _, figure in scored if figure is not None])

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """List the nuclei of a picture of any size."""
        pixels = rgb_pixels(read_volume(request.inputs[0]))
        started = time.perf_counter()
        known = Normalization(**trained.about["known"])
        answer = predict_maps(load_net(self.config, trained), pixels, self.config, known)
        found = find_peaks(accumulate(answer, self.config), self.config)
        kept = found.scores >= trained.about["threshold"]
        seconds = time.perf_counter() - started
        return write_points(found.points[kept], found.scores[kept], pixels, request.out, seconds)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[VocaConfig, str]:
        """What all arms of the claim share."""
        config, data, _ = _claim_size(preset)
        return config, data

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """Votes place nuclei tighter and on far fewer pixels than peaks, and their weights help packed nuclei."""
        config, data, num_seeds = _claim_size(preset)
        seeds = [work.seed + offset for offset in range(num_seeds)]
        work.say(f"claim with seeds {seeds}: VOCA, VOCA-NW with the same network, and peak regression")
        arms = [(seed, name) for seed in seeds for name in ("voca", "pr")]
        parts = work.map_runs(functools.partial(_claim_arm, config, data), arms, name="arm")
        return judge([row for rows, _ in parts for row in rows], [one for _, summaries in parts for one in summaries])


def survey(cases: Sequence[Case], read: CaseReader) -> tuple[Normalization, list[tuple[int, int]]]:
    """Mean and deviation of the training images, the share of foreground in them, and their sizes."""
    sums, squares, pixels, inside = np.zeros(3), np.zeros(3), 0, 0.0
    shapes = []
    for case in cases:
        found = read(case)
        values = found["pixels"].reshape(-1, 3).astype(np.float64)
        sums, squares, pixels = sums + values.sum(0), squares + (values**2).sum(0), pixels + len(values)
        inside += float((found["target"][0] > 0).sum())
        shapes.append((found["pixels"].shape[0], found["pixels"].shape[1]))
    mean = sums / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 1.0))
    return Normalization(tuple(mean.tolist()), tuple(deviation.tolist()), inside / pixels), shapes


def with_points_beside(case: Case) -> Case:
    """The case with the list of points that lies beside its image file, if it has none."""
    image = case.fields.get("image")
    if not isinstance(image, FileRef) or is_url(image.path) or any(name in case.fields for name in POINT_FIELDS):
        return case
    path = Path(image.path)
    stem, folders = stem_of(path), (path.parent, path.parent.parent / "points")
    names = [f"{stem}{end}" for end in ("_detection.mat", "_points.csv", "_points.json", ".csv", ".json", ".mat")]
    found = next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)
    return case if found is None else replace(case, fields={**case.fields, "points": ref_to(found, "table")})


def paper_fold(cases: Sequence[Case], fold: int) -> Splits:
    """Test on one of the paper's two subsamples of CRCHistoPhenotypes and train on the other (appendix A).

    Raises:
        UserError: a case is not called img1 to img100, or a subsample has no case.
    """
    first: list[Case] = []
    second: list[Case] = []
    for case in cases:
        number = re.search(r"img(\d+)$", case.id)
        if number is None or not 1 <= int(number.group(1)) <= 100:
            raise UserError(f"--config.fold needs the images img1 to img100 of CRCHistoPhenotypes, found {case.id}")
        (first if int(number.group(1)) in FOLD_1 else second).append(case)
    test, train = (first, second) if fold == 1 else (second, first)
    if not test or not train:
        raise UserError(f"--config.fold {fold} needs images of both subsamples; all {len(cases)} are of one")
    return Splits(tuple(train), (), tuple(test))


def _claim_size(preset: str) -> tuple[VocaConfig, str, int]:
    """Config, source and number of seeds. Smoke is the card's smallest set-up: 8 training and 4 test tiles."""
    if preset == "smoke":
        longer = {"channels": (16, 32, 64, 128), "num_epochs": 6, "lr_decay_epochs": 4, "test_fraction": 1 / 3}
        config = VocaConfig(**{**_SMALL, **longer})
        return config, "phantom:nuclei?n=12&size=255&seed={seed}", 3
    if preset not in ("demo", "paper"):
        raise UserError(f"the claim runs on the phantom with --preset smoke, demo or paper, not {preset}")
    chosen = Voca.presets[preset]
    return VocaConfig(**chosen.config), chosen.data.replace("seed=0", "seed={seed}"), 5 if preset == "demo" else 3


def _claim_arm(config: VocaConfig, data: str, work: Workbench, arm: tuple[int, str]) -> tuple[list[Row], list[Row]]:
    """Train VOCA or PR on one seed's tiles and score it; VOCA's network also with all weights 1, as VOCA-NW."""
    work.seed, name = arm
    system = Voca(replace(config, **Voca.variants[name].config))
    splits = system.split(open_source(data.format(seed=work.seed)), work.seed)
    trained = system.train(work, splits)
    rows: list[Row] = []
    summaries: list[Row] = []
    for scored_as, weighted in (("voca", True), ("voca_nw", False)) if name == "voca" else ((name, True),):
        cases = [(_EXAMPLES, case) for case in splits.test]
        images = [score_case(system.config, trained, case, weighted=weighted)[0] for case in cases]
        result = summarize(images, config.hit_px)
        told: Row = {"variant": scored_as, "seed": work.seed}
        rows += [{**told, **row} for row in result.rows]
        summaries.append({**told, **result.summary})
    return rows, summaries


def judge(rows: Sequence[Row], summaries: Sequence[Row]) -> ClaimResult:
    """The card's three inequalities, on cases paired by seed; F1 is reported and not judged."""
    by_case: dict[tuple[Any, Any], dict[Any, Row]] = {}
    for row in rows:
        by_case.setdefault((row["seed"], row["case"]), {})[row["variant"]] = row
    paired: list[Row] = []
    for (seed, case), arms in by_case.items():
        told: Row = {"variant": "voca", "seed": seed, "case": case}
        told["positive_ratio"] = float(arms["voca"]["positive_percent"]) / max(
            float(arms["pr"]["positive_percent"]), 1e-9
        )
        if "close_recall" in arms["voca"]:
            told["close_recall_gain"] = float(arms["voca"]["close_recall"]) - float(arms["voca_nw"]["close_recall"])
        paired.append(told)
    checks = [
        difference(
            rows, "distance_q3_px", "voca", "pr", lower_is_better=True,
            statement="three quarters of VOCA's nuclei are nearer to their annotation than of peak regression's",
        ),
        bound(
            paired, "positive_ratio", "voca", at_most=0.3,
            statement="the accumulator has less than 30 % of the positive pixels of the peak map",
        ),
        bound(
            paired, "close_recall_gain", "voca", at_least=0.0,
            statement="with weights, no fewer nuclei nearer than 12 px to another are found than without",
        ),
    ]  # fmt: skip
    f1 = {
        arm: [round(float(s["f1"]), 4) for s in summaries if s["variant"] == arm] for arm in ("voca", "voca_nw", "pr")
    }
    note = f"F1 per seed, reported and not judged: {f1}; paper, fold means: VOCA 0.847, VOCA-NW 0.834"
    return ClaimResult(checks=checks, rows=[*rows, *summaries], notes=[note])
