"""Settings and variants of the tear classifier. Fields default to the paper's values where its text has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medray.system import Variant
from medray.systems.shoulder.vrn_networks import Activation, Arch
from medray.systems.shoulder.vrn_volumes import Cropper

Plane = Literal["coronal", "sagittal", "axial", "any"]
MIN_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class VrnConfig:
    """The cube that is cut out of a scan, the network and its training."""

    size: int = 64
    """Voxels along each edge of the network's cube (paper 64)."""
    edge_mm: float = 110.0
    """Length of the cube's edge around the humeral head, mm (not in the text)."""
    max_padding: float = 0.25
    """Share of the edge that may lie beyond the scan along each axis; scans that hold less are refused."""
    plane: Plane = "coronal"
    """Plane of the slices that are expected (not in the text), or any; files that do not tell theirs are taken."""
    arch: Arch = "vrn"
    """Voxception-ResNet (paper), a ResNet-18 on coronal slices with the mean of their logits, or a 3D ResNet-10."""
    blocks: int = 2
    """Voxception blocks, each halves the map that is weighed into the heat map (paper 2; Brock et al. 4)."""
    width: int = 32
    """Channels of the first block or stage, doubled by each (not in the text)."""
    activation: Activation = "elu"
    """Of the Voxception-ResNet: elu as in Brock et al., or relu."""
    dropout: float = 0.5
    """Dropout before the last layer (rate not in the text)."""
    weight_decay: float = 1e-3
    """L2 regularization of the weights of convolutions and of the last layer (not in the text)."""
    lr: float = 0.002
    """Learning rate of SGD (paper 0.002)."""
    momentum: float = 0.9
    """Nesterov momentum (paper 0.9)."""
    lr_drop_epoch: int = 12
    """Epochs after which the learning rate becomes a tenth (paper 12)."""
    num_epochs: int = 100
    """Passes over the training volumes; the last weights count (paper 100)."""
    batch_size: int = 6
    """Volumes in an update (paper 6)."""
    cam: Literal["tear", "predicted"] = "tear"
    """What the heat map speaks for: any tear, by the sum of the tear classes' weights, or the predicted class, where
    that is none again any tear."""
    repeats: int = 60
    """Repetitions of the test with dropout left on, whose median and quartiles are told (paper 60 repetitions); 0 for
    none."""
    readers: str = ""
    """CSV file with the columns reader, group, case and class: what people said of the test cases, to compare with."""
    examples: int = 3
    """Test cases that the report shows with their heat map, of different sizes."""
    validation_fraction: float = 0.0
    """Share of the patients whose scores are drawn over the epochs; they choose nothing (paper none)."""
    test_fraction: float = 0.094
    """Share of the patients kept for testing (paper 200 of 2,124)."""

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_training()
        if self.readers:  # absolute from the start: a run may be resumed from another folder
            object.__setattr__(self, "readers", str(Path(self.readers).expanduser().resolve()))

    def _check_sizes(self) -> None:
        if self.size < MIN_SIZE:
            raise ValueError(f"size must be at least {MIN_SIZE} voxels, got {self.size}")
        if self.edge_mm <= 0 or not 0 <= self.max_padding < 1:
            raise ValueError(
                f"edge_mm must be above 0 and max_padding in [0, 1), got {self.edge_mm:g} and {self.max_padding:g}"
            )
        if self.blocks < 1 or self.size <= 2**self.blocks:  # batch normalization has nothing to average in one voxel
            raise ValueError(
                f"blocks must be at least 1 and leave two voxels of size {self.size} along each edge, got {self.blocks}"
            )
        if self.width < 4 or self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}")

    def _check_training(self) -> None:
        if self.lr <= 0 or not 0 < self.momentum < 1 or self.weight_decay < 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"lr must be above 0, momentum and dropout below 1 and weight_decay 0 or more, got {self.lr:g}, "
                f"{self.momentum:g}, {self.dropout:g} and {self.weight_decay:g}"
            )
        if self.num_epochs < 1 or self.lr_drop_epoch < 1 or self.batch_size < 2 or min(self.repeats, self.examples) < 0:
            raise ValueError(
                "num_epochs and lr_drop_epoch must be at least 1, batch_size 2 (batch normalization), repeats and "
                f"examples 0, got {self.num_epochs}, {self.lr_drop_epoch}, {self.batch_size}, {self.repeats}, "
                f"{self.examples}"
            )
        for name in ("validation_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name):g}")

    @property
    def cropper(self) -> Cropper:
        """How cubes are cut out of scans."""
        return Cropper(self.size, self.edge_mm, self.max_padding)

    @property
    def tolerance_px(self) -> float:
        """How far from the tear a heat map's peak still counts: a voxel of the two-block map, for every network."""
        return 4.0


VARIANTS: Mapping[str, Variant] = {
    "vrn": Variant(about="the paper's: two Voxception blocks and one linear layer"),
    "vrn4": Variant(about="four blocks, as in Brock et al.: a coarser heat map", config={"blocks": 4}),
    "resnet2d": Variant(
        about="ResNet-18 on every coronal slice, mean over slices (the 2D baseline the authors ask for)",
        config={"arch": "resnet2d"},
    ),
    "resnet10_3d": Variant(about="a 3D ResNet-10 (a peer of ours)", config={"arch": "resnet10_3d"}),
    "relu": Variant(about="ReLU in place of ELU", config={"activation": "relu"}),
}
