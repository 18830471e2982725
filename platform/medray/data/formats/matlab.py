"""MATLAB files up to version 7, read as tables: the numeric matrices by name. Nothing in them is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.errors import UserError


def read_matrices(path: Path) -> dict[str, NDArray[Any]]:
    """The numeric variables of a .mat file, each as a matrix (rows, columns).

    Raises:
        UserError: damaged, of version 7.3 (which is HDF5), or without a numeric variable.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        loaded = loadmat(path, variable_names=None, chars_as_strings=False)
    except NotImplementedError:
        raise UserError(f"{path} is a MATLAB 7.3 file; save it with the option -v7 or rename it to .h5") from None
    except (MatReadError, OSError, ValueError, TypeError, EOFError, IndexError) as error:
        detail = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path} is truncated, damaged or not a MATLAB file: {detail}") from error
    found = {
        name: value
        for name, value in loaded.items()
        if not name.startswith("__") and isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    }
    if not found:
        raise UserError(f"{path} holds no numeric matrix")
    return found
