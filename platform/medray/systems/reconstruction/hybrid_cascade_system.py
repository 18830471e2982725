"""The hybrid cascade as a system: presets, variants, data, evaluation, prediction, claim.

The method itself is in `hybrid_cascade`.
"""

from __future__ import annotations

import functools
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import wilcoxon
from torch import Tensor

from medray.data.cache import SampleCache
from medray.data.case import BadCase, Case, Source, Splits, Volume
from medray.data.channels import of_modality
from medray.data.fields import FileRef, Kind
from medray.data.kspace import RawReader, RawScan, as_raw, from_kspace
from medray.data.readers import stem_of, suffix_of
from medray.data.slices import put_back
from medray.data.splits import split_by_patient
from medray.data.writers import beside, write_bytes, write_json, write_volume
from medray.errors import UserError
from medray.figures.drawing import to_png
from medray.figures.panels import Panel, panel_rows
from medray.metrics.image_quality import image_quality
from medray.nn.weights import load_network
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
from medray.systems.claims import difference, score_arms, variant_arms
from medray.systems.reconstruction.hybrid_cascade import (
    Cascade,
    HybridConfig,
    HybridLearner,
    sampling_mask,
    scale_of,
    two_channels,
)

_SLICES_AT_ONCE = 16
_EXAMPLES_DRAWN = 3
_ERROR_GAIN = 4

_PHANTOM: Mapping[str, Any] = {"filters": 16, "num_blocks": 3, "block_depth": 3, "batch_size": 8}
_CLAIM: Mapping[str, Any] = {"num_epochs": 10, "validation_fraction": 0.1}
_CLAIM_DATA = "phantom:brain?kind=kspace&n=30&slices=10&size=64&seed=0"
_CLAIM_ARMS = ("hybrid", "kiki", "no_dc", "unet", "w_net")
MAX_LOSS_DB = -0.1
"""How far the final PSNR may stay behind KIKI-net-like: the paper's gain of 0.2 dB is within the spread of seeds."""

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        about="phantom of 64 x 64 pixels, 3 blocks of 16 filters; half a minute on 2 cores",
        data="phantom:brain?kind=kspace&n=10&slices=12&size=64&seed=0",
        config={**_PHANTOM, "num_epochs": 4},
        compare=("zero_filled", "kiki"),
    ),
    "demo": Preset(
        about="phantom of 96 x 96 pixels, 6 blocks of 24 filters; about ten minutes on 2 cores",
        data="phantom:brain?kind=kspace&n=20&slices=16&size=96&seed=0",
        config={"filters": 24, "batch_size": 8, "num_epochs": 8},
        compare=("zero_filled", "kiki"),
    ),
    "paper": Preset(
        about="the paper's sizes at fourfold acceleration; on your own k-space with --data",
        data="phantom:brain?kind=kspace&n=45&slices=170&size=256&seed=0",
        compare=("kiki", "deep_cascade", "w_net", "dagan", "refinegan"),
    ),
    "magnitude": Preset(
        about="k-space simulated from magnitude volumes without phase; give --data FOLDER; ten minutes",
        data="",
        config={"filters": 16, "batch_size": 4, "num_epochs": 20, "every": 2, "test_fraction": 0.5},
        compare=("kiki",),
    ),
}

_UNET: Mapping[str, Any] = {"block": "unet", "data_consistency": False}
VARIANTS: Mapping[str, Variant] = {
    "hybrid": Variant(about="image and k-space blocks with data consistency, the paper's method"),
    "kiki": Variant(about="KIKI-net-like: as many blocks, starting in k-space", config={"domains": "KIKIKI"}),
    "deep_cascade": Variant(about="image blocks only, as many weights", config={"domains": "IIIIII"}),
    "no_dc": Variant(about="without data consistency", config={"data_consistency": False}),
    "unet": Variant(about="one image U-Net without data consistency", config={"domains": "I", **_UNET}),
    "w_net": Variant(about="a k-space and an image U-Net without data consistency", config={"domains": "KI", **_UNET}),
    "ww_net": Variant(
        about="four U-Nets with data consistency (authors' code)", config={"domains": "IKIK", "block": "unet"}
    ),
    "dagan": Variant(
        about="stand-in for DAGAN: an image U-Net against a critic", config={"domains": "I", **_UNET, "adversary": 1e-3}
    ),
    "refinegan": Variant(
        about="stand-in for RefineGAN: two image U-Nets against a critic, with its cycle error",
        config={"domains": "II", **_UNET, "adversary": 1e-3, "cycle": 1.0},
    ),
    "zero_filled": Variant(about="no network: what was not measured is 0", config={"num_epochs": 0}),
    "fivefold": Variant(about="20 % of k-space measured", config={"sampling": 0.2}),
    "depth5": Variant(about="5 hidden layers a block (authors' code)", config={"block_depth": 5}),
    "last3x3": Variant(about="last layers of 3x3 as the text says", config={"last_kernel": 3}),
    "pool100": Variant(about="another of 100 masks at each presentation (authors' code)", config={"mask": "pool100"}),
    "augmented": Variant(about="with augmentation (authors' code)", config={"augment": True}),
    "raw_fft": Variant(about="transforms neither centered nor orthonormal (authors' code)", config={"fft": "raw"}),
    "magnitude_loss": Variant(about="loss on magnitudes (authors' first code)", config={"loss": "magnitude"}),
    "no_final_dc": Variant(about="without data consistency after the last block", config={"final_dc": False}),
}


@dataclass(frozen=True)
class Reconstruction:
    """The reconstruction of a scan.

    Attributes:
        scan: what was reconstructed.
        mask: what was used of its k-space, (rows, columns).
        steps: complex images per coil, each (Z, C, H, W): the zero-filled ones, maybe those after each block, the final
            ones.
    """

    scan: RawScan
    mask: NDArray[np.bool_]
    steps: Sequence[NDArray[np.complex64]]

    def combined(self, step: int = -1) -> NDArray[np.float32]:
        """Magnitude after a step, root sum of squares over coils, (Z, H, W)."""
        return root_sum_of_squares(self.steps[step])

    @property
    def reference(self) -> NDArray[np.float32]:
        """Magnitude of the fully sampled image, (Z, H, W)."""
        return root_sum_of_squares(from_kspace(self.scan.kspace))


def root_sum_of_squares(images: NDArray[Any]) -> NDArray[np.float32]:
    """Complex (Z, C, H, W) to (Z, H, W): how the paper would combine coils."""
    return np.asarray(np.sqrt((np.abs(images) ** 2).sum(axis=1)), dtype=np.float32)


class Reconstructor:
    """A trained cascade, or none at all where there is nothing to train.

    Args:
        config: settings.
        weights: of the cascade; None gives zero-filled images.
        cache: keeps what was decoded.
    """

    def __init__(self, config: HybridConfig, weights: Path | None, cache: SampleCache | None = None) -> None:
        self.config = config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.cascade: Cascade | None = None
        if weights is not None:
            self.cascade = Cascade(config)
            load_network(self.cascade, weights, prefix="cascade.")
            self.cascade.to(self.device).eval()
        self.reader = RawReader(config.crop, min_object=config.min_object, cache=cache)

    @torch.no_grad()
    def __call__(
        self, scan: RawScan, slices: Sequence[int] | None = None, *, every_block: bool = False
    ) -> Reconstruction:
        """Reconstruct a scan, coil by coil; a fully sampled one is undersampled by the model's mask first.

        Args:
            scan: the scan.
            slices: only these, in this order; all of them if None.
            every_block: keep what each block gave, not the zero-filled and the final images alone.
        """
        chosen = list(range(len(scan.kspace)) if slices is None else slices)
        kspace = scan.kspace[chosen]
        part = RawScan(scan.case, kspace, scan.mask, scan.grid, range(len(kspace)))
        rows, columns = kspace.shape[-2:]
        mask = sampling_mask(self.config, (rows, columns)) if scan.mask is None else scan.mask
        flat = two_channels(from_kspace(kspace * mask)).flatten(0, 1)
        batches = [self._batch(batch, mask) for batch in flat.split(_SLICES_AT_ONCE)]
        if not every_block:
            batches = [[images[0], images[-1]] for images in batches]
        steps = [torch.cat(images).unflatten(0, kspace.shape[:2]).numpy() for images in zip(*batches, strict=True)]
        return Reconstruction(part, mask, [(step[:, :, 0] + 1j * step[:, :, 1]).astype(np.complex64) for step in steps])

    def _batch(self, zero_filled: Tensor, mask: NDArray[np.bool_]) -> list[Tensor]:
        if self.cascade is None:
            return [zero_filled]
        image = zero_filled.to(self.device)
        laid = torch.from_numpy(mask).float()[None, None].to(self.device).expand(len(image), 1, -1, -1)
        scale = scale_of(image, laid)
        return [(step * scale).cpu() for step in self.cascade(image / scale, laid)]


class HybridCascade(System[HybridConfig]):
    """MR reconstruction from undersampled k-space."""

    slug = "hybrid_cascade"
    config_class = HybridConfig
    predict_inputs = ("kspace",)
    predict_suffix = ".npy"
    field_kinds: ClassVar[Mapping[str, Kind]] = {"kspace": "array", "mask": "array"}
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS

    def arrange(self, cases: Sequence[Case]) -> Sequence[Case]:
        """Files with an array called kspace become raw data, with their mask."""
        return [as_raw(case) for case in of_modality(cases, self.config.modality)]

    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """K-space, or magnitude images that it is simulated from."""
        return ("kspace",) if any("kspace" in case.fields for case in cases) else ("image",)

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """K-space that cannot be used, and undersampled k-space, which has nothing to be compared with."""
        reader = RawReader(self.config.crop)
        bad = []
        for case in cases:
            try:
                if reader.read(case).mask is not None:
                    reason = "its k-space is undersampled; training and scoring need all of it"
                    bad.append(BadCase(case.id, reason, _file(case)))
            except UserError as error:
                bad.append(BadCase(case.id, str(error), _file(case)))
        return bad

    def split(self, source: Source, seed: int) -> Splits:
        """By patient."""
        validation, test = self.config.validation_fraction, self.config.test_fraction
        return split_by_patient(source.cases, validation=validation, test=test, seed=seed)

    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Train the cascade end to end; nothing is trained for zero-filled images."""
        about: dict[str, Any] = {"simulated": "kspace" not in splits.train[0].fields}
        if about["simulated"]:
            work.say(
                "k-space is simulated from magnitude images: their phase is 0 everywhere, and scores come out better "
                "than they would on measured data"
            )
        if self.config.num_epochs == 0:
            return Trained(weights=None, about=about)
        make = functools.partial(HybridLearner, self.config, splits.train, splits.validation, work.cache)
        fit = work.fit(make)
        return Trained(weights=fit.weights, about=about, metrics=fit.metrics, fits={"train": fit})

    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Undersample and reconstruct every case; slices weigh alike in the summary, as in table 1."""
        score = functools.partial(_score_case, self.config, trained, work.cache)
        scored = work.map(score, list(enumerate(cases)), name="evaluate")
        figures = [figure for _, _, figure in scored if figure is not None]
        sums: dict[str, tuple[float, int]] = {}
        for _, values, _ in scored:
            for name, slices in values.items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (total + float(np.sum(slices)), count + len(slices))
        return Evaluation(
            rows=[row for row, _, _ in scored],
            summary={name: total / count for name, (total, count) in sums.items() if count},
            figures=figures,
        )

    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Write the magnitude image of a scan, with its complex image, measurements and a picture beside it."""
        case = _asked(request)
        reconstructor = Reconstructor(self.config, trained.weights)
        reader = RawReader(None)  # undersampled data keep their size, and so do the user's images
        scan = reader.read(case)
        started = time.perf_counter()
        found = reconstructor(scan)
        seconds = time.perf_counter() - started
        image = found.combined()
        measured: dict[str, float] = {
            "sampled_percent": 100 * float(found.mask.mean()),
            "ms_per_slice": 1000 * seconds / len(image),
        }
        if scan.mask is None:
            scores = scores_of(found, blocks=False)
            measured.update({name: float(np.mean(values)) for name, values in scores.items()})
        buffer = io.BytesIO()
        np.save(buffer, found.steps[-1][:, 0] if found.steps[-1].shape[1] == 1 else found.steps[-1])
        picture = figure_of(found, "prediction", case.id)
        files = {
            "image": write_volume(_as_volume(image, case, scan, request.out), request.out),
            "complex": write_bytes(beside(request.out, "_complex.npy"), buffer.getvalue()),
            "measurements": write_json(beside(request.out, "_measurements.json"), measured),
            "picture": write_bytes(beside(request.out, "_overview.png"), picture.png),
        }
        return Prediction(files=files, metrics=measured, seconds=seconds)

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[HybridConfig, str]:
        """The preset with slices and epochs enough for a fair comparison, see the card's smallest set-up."""
        chosen = cls.presets[preset]
        if preset != "smoke":
            return HybridConfig(**chosen.config), chosen.data
        return HybridConfig(**{**chosen.config, **_CLAIM}), _CLAIM_DATA

    @classmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """Starting on images beats starting in k-space after the first block; data consistency beats none."""
        config, data = cls.claim_setting(preset)
        arms = variant_arms(cls, _CLAIM_ARMS, config, data.replace("seed=0", "seed={seed}"))
        seeds = range(work.seed, work.seed + cls.presets[preset].seeds)
        rows = score_arms(work, cls, arms, seeds=seeds).rows
        return ClaimResult(checks=judge(rows), rows=rows, notes=[wilcoxon_note(rows, name) for name in _CLAIM_ARMS[1:]])


def judge(rows: Sequence[Row]) -> list[ClaimCheck]:
    """Both parts of the claim, on differences paired by seed and test case."""
    first = "after block 1 the cascade that starts on images has a lower error than the one that starts in k-space"
    final = "its final PSNR is no more than 0.1 dB below that of the KIKI-net-like cascade"
    consistency = "data consistency: the PSNR is above that of {} without it"
    names = {"no_dc": "the same cascade", "unet": "an image U-Net", "w_net": "a W-net"}
    return [
        difference(rows, "block1_nrmse_percent", "hybrid", "kiki", lower_is_better=True, statement=first),
        difference(rows, "psnr_db", "hybrid", "kiki", at_least=MAX_LOSS_DB, statement=final),
        *(
            difference(rows, "psnr_db", "hybrid", other, statement=consistency.format(told))
            for other, told in names.items()
        ),
    ]


def wilcoxon_note(rows: Sequence[Row], other: str) -> str:
    """The paper's test: paired signed ranks of the NRMSE over all test cases of all seeds."""
    scores: dict[str, dict[tuple[Any, Any], float]] = {"hybrid": {}, other: {}}
    for row in rows:
        if row["variant"] in scores:
            scores[str(row["variant"])][row["seed"], row["case"]] = float(row["nrmse_percent"])
    pairs = [(value, scores[other][key]) for key, value in scores["hybrid"].items() if key in scores[other]]
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    p = float(wilcoxon(ours, theirs).pvalue)
    return (
        f"NRMSE {ours.mean():.3f} % against {theirs.mean():.3f} % of {other}: Wilcoxon p = {p:.2g}, {len(pairs)} cases"
    )


def _score_case(
    config: HybridConfig, trained: Trained, cache: SampleCache, numbered: tuple[int, Case]
) -> tuple[Row, dict[str, list[float]], Figure | None]:
    """The row of one case, its values slice by slice, and for the first few cases what to draw."""
    number, case = numbered
    reconstructor = Reconstructor(config, trained.weights, cache)
    scan = reconstructor.reader.read(case)
    found = reconstructor(scan, scan.listed[:: config.every], every_block=True)
    values = scores_of(found)
    row: Row = {"case": case.id}
    row.update({name: float(np.mean(slices)) for name, slices in values.items() if slices})
    if number >= _EXAMPLES_DRAWN or not len(found.scan.kspace):
        return row, values, None
    kind = f"{config.order} of {config.block}" if reconstructor.cascade else "zero-filled"
    caption = f"{kind}, {case.id}: {row.get('psnr_db', float('nan')):.1f} dB"
    return row, values, figure_of(found, f"slice{number}", caption)


def scores_of(found: Reconstruction, *, blocks: bool = True) -> dict[str, list[float]]:
    """Quality of each slice against the fully sampled one, before (``initial_``) and after, maybe block by block."""
    reference = found.reference
    values: dict[str, list[float]] = {}
    last = len(found.steps) - 1
    for z in [z for z in range(len(reference)) if np.ptp(reference[z]) > 0]:
        for step in range(last + 1):
            scores = image_quality(found.combined(step)[z], reference[z])
            if blocks and step > 0:
                values.setdefault(f"block{step}_nrmse_percent", []).append(scores["nrmse_percent"])
            for prefix in [*(["initial_"] if step == 0 else []), *([""] if step == last else [])]:
                for name, value in scores.items():
                    values.setdefault(prefix + name, []).append(value)
    return values


def figure_of(found: Reconstruction, name: str, caption: str) -> Figure:
    """The middle slice: zero-filled, reconstructed, and where it is known the truth and the error."""
    z = len(found.scan.kspace) // 2
    images = {"zero-filled": found.combined(0)[z], "reconstructed": found.combined()[z]}
    truth = found.reference[z] if found.scan.mask is None else None
    top = float(np.percentile(images["reconstructed"] if truth is None else truth, 99.8)) or 1.0
    row = [Panel(image, title, (0.0, top)) for title, image in images.items()]
    if truth is not None:
        error = np.abs(images["reconstructed"] - truth)
        row = [Panel(truth, "fully sampled", (0.0, top)), *row]
        row.append(Panel(error, f"error, {_ERROR_GAIN} times as bright", (0.0, top / _ERROR_GAIN), "inferno"))
    row.append(Panel(found.mask.astype(float), f"measured, {100 * found.mask.mean():.0f} %", (0.0, 1.0)))
    picture = found.scan.grid is None  # k-space has rows and columns; slices of a volume have axes of the patient
    return Figure(name=name, caption=caption, png=to_png(panel_rows([row], title=caption, picture=picture)))


def _asked(request: PredictRequest) -> Case:
    """The scan to reconstruct, with its mask from the same file or from ``--option mask=FILE``."""
    unknown = sorted(set(request.options) - {"mask"})
    if unknown:
        raise UserError(f"--option {unknown[0]} is unknown; hybrid_cascade has mask=FILE")
    path = request.inputs[0]
    case = as_raw(Case(stem_of(path), "prediction", {"image": FileRef(str(path))}))
    if "mask" not in request.options:
        return case
    if "kspace" not in case.fields:
        raise UserError(f"{path} holds no k-space; a mask belongs to an array called kspace (HDF5, NPZ)")
    return replace(case, fields={**case.fields, "mask": FileRef(request.options["mask"], "array")})


def _as_volume(image: NDArray[np.float32], case: Case, scan: RawScan, out: Path) -> Volume:
    """Slices of a volume back on its grid; those of k-space, which has none, as they came (NPY, NPZ), or with the
    slices last, as viewers want them.
    """
    if scan.grid is not None:
        return put_back(image, scan.grid, case.volume("image"))
    as_they_came = suffix_of(out) in (".npy", ".npz")
    return Volume(
        (image if as_they_came else np.ascontiguousarray(np.moveaxis(image, 0, -1)))[None], np.eye(4), case.id
    )


def _file(case: Case) -> str:
    return next((ref.path for ref in case.fields.values() if isinstance(ref, FileRef)), "")
