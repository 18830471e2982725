"""Mutual-information registration with elastix: affine, then a multi-resolution cubic B-spline.

The classical peer that registration papers compare with, Klein et al., IEEE TMI 2010, through itk-elastix with the
parameter maps that SimpleElastix (Marstal et al., CVPR workshops 2016) hands out as defaults: Mattes mutual information
on 2048 random samples drawn anew at each of 256 steps, adaptive stochastic gradient descent, four levels of smoothing,
and a bending-energy penalty on the B-spline. A thin wrapper: it converts axes and units, and tells in a sentence what
elastix would tell in a page.

Displacements are in pixels and in array-axis order: component 0 moves along axis 0. ITK orders them the other way.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medray.errors import UserError

_ELASTIX_MODULE = "itk.itkElastixRegistrationMethodPython"
_INSTALL_HINT = "elastix needs the package itk-elastix, which is not installed; run: pip install 'medray[elastix]'"
_MIN_SIZE = 8  # the coarsest smoothing kernel and the B-spline's support both need this many pixels along every axis


def register_elastix(
    moving: ArrayLike,
    fixed: ArrayLike,
    *,
    spacing: Sequence[float] | None = None,
    num_levels: int = 4,
    final_grid_spacing_px: float = 10.0,
    max_iterations: int = 256,
    num_samples: int = 2048,
    bending_weight: float = 1.0,
    seed: int = 0,
    num_threads: int = 1,
) -> NDArray[np.float32]:
    """Align two images of any two modalities by mutual information: affine, then a B-spline from coarse to fine.

    Silent, leaves no file behind, and one seed gives one result. The first call in a process loads ITK, about ten
    seconds; a timed comparison makes one small call first.

    Args:
        moving: image to be warped, (H, W) or (D, H, W).
        fixed: image to be matched, on the same grid as ``moving``.
        spacing: pixel size in mm along each array axis; 1 mm by default. It matters where it differs between axes:
            rotations, and the bending energy, are those of the body and not of the array.
        num_levels: levels of the pyramid, in the affine and in the B-spline stage alike; 4 in SimpleElastix.
        final_grid_spacing_px: distance between control points at the finest level, in pixels along every axis. Coarser
            levels widen it by a factor of sqrt(2) each, as in SimpleElastix.
        max_iterations: optimizer steps per level and stage.
        num_samples: random image positions drawn in each step to estimate the mutual information.
        bending_weight: weight of the bending-energy penalty beside the mutual information, in the B-spline stage.
        seed: of the random sample positions.
        num_threads: for smoothing the images and sampling the field; does not change the result. The metric, most of
            the work, always runs on one thread: to use more cores, register several pairs in processes of their own.

    Returns:
        Displacement u, (2, H, W) or (3, D, H, W), in pixels along the array axes, defined on the grid of ``fixed``:
        ``moving`` sampled at x + u(x) matches ``fixed`` at x.

    Raises:
        ValueError: shapes differ, the images are not 2D or 3D, or a setting is out of range.
        UserError: itk-elastix is not installed, an image is constant, too small, or holds NaN or infinity, or elastix
            gave up, most often since the two images hardly overlap.
    """
    moving_array, fixed_array = _check_images(moving, fixed)
    sizes = _check_spacing(spacing, fixed_array.ndim)
    _check_settings(num_levels, final_grid_spacing_px, max_iterations, num_samples, bending_weight, num_threads)
    itk = load_elastix()
    parameters = _parameter_maps(
        itk, fixed_array.ndim, num_levels, final_grid_spacing_px, max_iterations, num_samples, bending_weight, seed
    )
    images = _to_itk(itk, moving_array, sizes), _to_itk(itk, fixed_array, sizes)
    return _from_itk_field(itk, _run(itk, *images, parameters, num_threads), sizes)


def require_elastix() -> None:
    """Check, without loading it, that itk-elastix is installed.

    Raises:
        UserError: it is not; the sentence names the extra that brings it.
    """
    # ITK attributes load lazily, and asking for one of them would load it: look for its file instead
    if (
        importlib.util.find_spec("itk") is None
        or importlib.util.find_spec("itk.itkElastixRegistrationMethodPython") is None
    ):
        raise UserError(_INSTALL_HINT)


def _run(itk: Any, moving: Any, fixed: Any, parameters: Any, num_threads: int) -> Any:
    """Register two ITK images; the field is an ITK image of vectors in mm."""
    threads_before = itk.MultiThreaderBase.GetGlobalDefaultNumberOfThreads()
    maximum_before = itk.MultiThreaderBase.GetGlobalMaximumNumberOfThreads()
    with tempfile.TemporaryDirectory(prefix="elastix-") as scratch:
        method = itk.ElastixRegistrationMethod.New(fixed, moving)
        method.SetParameterObject(parameters)
        method.SetNumberOfThreads(num_threads)
        method.SetLogToConsole(False)
        method.SetOutputDirectory(scratch)
        method.SetLogFileName("elastix.log")
        method.SetLogToFile(True)  # the exception says only "see elastix log": the reason is nowhere else
        try:
            method.UpdateLargestPossibleRegion()
            return itk.transform_to_displacement_field_filter(
                method.ConvertToItkTransform(method.GetCombinationTransform()),
                size=itk.size(fixed),
                output_spacing=fixed.GetSpacing(),
                output_origin=fixed.GetOrigin(),
                output_direction=fixed.GetDirection(),
            )
        except RuntimeError as error:
            log = Path(scratch, "elastix.log")
            raise UserError(_explain(log.read_text(errors="replace") if log.is_file() else str(error))) from error
        finally:
            # elastix sets its thread count for the whole process; other users of ITK in it should not feel that
            itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(maximum_before)
            itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(threads_before)


def load_elastix() -> Any:
    """The itk package with elastix in it, imported on first use: it takes seconds and most runs never need it.

    Raises:
        UserError: itk-elastix is not installed.
    """
    require_elastix()
    itk = importlib.import_module("itk")
    _ = itk.ElastixRegistrationMethod  # ITK loads its modules when they are first named
    return itk


def _check_images(moving: ArrayLike, fixed: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    # C order is not a matter of speed here: ITK reads an array in Fortran order as its transpose, without a word
    arrays = {
        "moving": np.ascontiguousarray(moving, dtype=np.float32),
        "fixed": np.ascontiguousarray(fixed, dtype=np.float32),
    }
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes["moving"] != shapes["fixed"]:
        raise ValueError(
            f"moving {shapes['moving']} and fixed {shapes['fixed']} must have the same shape; resample one to the other"
        )
    if len(shapes["fixed"]) not in (2, 3):
        raise ValueError(f"elastix registers 2D or 3D images without a channel axis, got shape {shapes['fixed']}")
    if min(shapes["fixed"]) < _MIN_SIZE:
        raise UserError(f"elastix needs at least {_MIN_SIZE} pixels along every axis, got shape {shapes['fixed']}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"the {name} image holds NaN or infinity; replace these values before registering it")
        if array.min() == array.max():
            raise UserError(f"the {name} image is constant ({array.flat[0]:g}): there is nothing to align it by")
    return arrays["moving"], arrays["fixed"]


def _check_spacing(spacing: Sequence[float] | None, spatial_dims: int) -> tuple[float, ...]:
    sizes = (1.0,) * spatial_dims if spacing is None else tuple(float(size) for size in spacing)
    if len(sizes) != spatial_dims or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise ValueError(f"spacing needs {spatial_dims} positive numbers in mm, one per array axis, got {sizes}")
    return sizes


def _check_settings(
    num_levels: int,
    final_grid_spacing_px: float,
    max_iterations: int,
    num_samples: int,
    bending_weight: float,
    num_threads: int,
) -> None:
    counts = {
        "num_levels": num_levels,
        "max_iterations": max_iterations,
        "num_samples": num_samples,
        "num_threads": num_threads,
    }
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if not (math.isfinite(final_grid_spacing_px) and final_grid_spacing_px >= 1.0):
        raise ValueError(f"final_grid_spacing_px must be at least 1 pixel, got {final_grid_spacing_px}; try 10")
    if not (math.isfinite(bending_weight) and bending_weight >= 0.0):
        raise ValueError(f"bending_weight must not be negative, got {bending_weight}; 0 turns the penalty off")


def _parameter_maps(
    itk: Any,
    spatial_dims: int,
    num_levels: int,
    final_grid_spacing_px: float,
    max_iterations: int,
    num_samples: int,
    bending_weight: float,
    seed: int,
) -> Any:
    """SimpleElastix' default maps of both stages, with what the caller may set put in."""
    parameters = itk.ParameterObject.New()
    for stage in ("affine", "bspline"):
        stage_map = parameters.GetDefaultParameterMap(stage, num_levels)
        stage_map["MaximumNumberOfIterations"] = (str(max_iterations),)
        stage_map["NumberOfSpatialSamples"] = (str(num_samples),)
        stage_map["RandomSeed"] = (str(seed % 2**31),)
        stage_map["WriteResultImage"] = ("false",)
        # on two threads itk-elastix 0.25 crashes the process here, and where it does not, the result varies
        stage_map["UseMultiThreadingForMetrics"] = ("false",)
        if stage == "bspline":
            # in voxels, hence per axis: a grid in mm would be too dense along the thick axis of an anisotropic volume
            stage_map.erase("FinalGridSpacingInPhysicalUnits")
            stage_map["FinalGridSpacingInVoxels"] = (repr(float(final_grid_spacing_px)),) * spatial_dims
            stage_map["Metric1Weight"] = (repr(float(bending_weight)),)
        parameters.AddParameterMap(stage_map)
    return parameters


def _to_itk(itk: Any, array: NDArray[np.float32], spacing: Sequence[float]) -> Any:
    image = itk.image_from_array(array)
    image.SetSpacing(tuple(reversed(spacing)))
    return image


def _from_itk_field(itk: Any, field: Any, spacing: Sequence[float]) -> NDArray[np.float32]:
    """(*shape, D) in mm with ITK's component order (last axis first) to (D, *shape) in pixels along array axes."""
    millimeters = np.moveaxis(itk.array_from_image(field), -1, 0)[::-1]
    sizes = np.asarray(spacing, dtype=np.float32).reshape(-1, *([1] * len(spacing)))
    return np.ascontiguousarray(millimeters / sizes, dtype=np.float32)


def _explain(log: str) -> str:
    """One sentence from elastix' log, which ends with the exception that stopped it."""
    reasons = re.findall(r"Description: *(?:ITK ERROR: *)?(?:\w+\(\w+\): *)?([^\n]+)", log)
    reason = reasons[-1].strip().rstrip(".") if reasons else "it gave no reason"
    remedy = ""
    if "samples map outside" in reason:
        remedy = ": the images hardly overlap, or share no structure; bring them to a common position and field of view"
    return f"elastix gave up ({reason}){remedy}"
