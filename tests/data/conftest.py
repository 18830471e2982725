"""Tiny files of every kind, written where a test asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as _nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import settings
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

# neither library says its types
nibabel: Any = _nibabel

settings.register_profile("medray", deadline=None)  # a busy machine is no failure
settings.load_profile("medray")

SaveNifti = Callable[..., Path]
SaveSeries = Callable[..., Path]

# columns: array axis 0 runs to the patient's left (3 mm), 1 to superior (2 mm), 2 to anterior (0.5 mm)
CROOKED = np.array([[-3.0, 0, 0, 10], [0, 0, 0.5, -20], [0, 2.0, 0, 30], [0, 0, 0, 1]])


@pytest.fixture
def crooked() -> NDArray[np.float64]:
    """An affine with permuted and flipped axes and three different spacings."""
    return CROOKED.copy()


@pytest.fixture
def save_nifti() -> SaveNifti:
    """Write an array with nibabel, folders on the way made."""

    def save(path: Path, array: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
        return path

    return save


@pytest.fixture
def save_series() -> SaveSeries:
    """Write one DICOM CT slice per z position (mm, LPS), file names in the order given; pixel = 100 * z + column."""

    def save(
        folder: Path, positions: list[float], *, uid: str = "1.2.3.4", patient: str = "Jane-4711", suffix: str = ".dcm"
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for number, z in enumerate(positions):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = CTImageStorage
            meta.MediaStorageSOPInstanceUID = UID(f"{uid}.{number + 1}")
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            path = folder / f"{uid}-{number:03d}{suffix}"
            data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
            data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
            data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", uid
            data.PatientID, data.PatientName, data.Modality = patient, "Doe^Jane", "CT"
            data.SeriesDescription, data.InstanceNumber = f"series {uid}", number + 1
            data.ImagePositionPatient, data.ImageOrientationPatient = [5.0, 7.0, z], [1, 0, 0, 0, 1, 0]
            data.PixelSpacing, data.SliceThickness = [0.5, 0.25], 2.0  # between rows, between columns
            data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 3, 4, 1, "MONOCHROME2"
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
            data.RescaleSlope, data.RescaleIntercept = 2, -1000
            pixels = np.broadcast_to(np.arange(4) + round(100 * z), (3, 4)).astype(np.uint16)
            data.PixelData = pixels.tobytes()
            pydicom.dcmwrite(path, data)
        return folder

    return save
