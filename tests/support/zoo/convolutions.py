"""Convolutions, with normalisation that keeps to one example."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.support.zoo.entry import Entry
from tests.support.zoo.making import CLASSES, Through, classified

_SIDE = 6


def _pooled(*layers: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(
        *layers, nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, CLASSES)
    )


def _groups() -> nn.Module:
    return _pooled(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3),
        nn.GroupNorm(1, 4),
        nn.ReLU(),
        channels=4,
    )


def _signal() -> nn.Module:
    """Dilated convolutions that look back."""
    return _pooled(
        nn.ConstantPad1d((2, 0), 0.0),
        nn.Conv1d(2, 4, 3),
        nn.ReLU(),
        nn.ConstantPad1d((4, 0), 0.0),
        nn.Conv1d(4, 4, 3, dilation=2),
        nn.ReLU(),
        channels=4,
    )


def _volume() -> nn.Module:
    return _pooled(nn.Conv3d(1, 3, 2), nn.InstanceNorm3d(3, affine=True), nn.ReLU(), channels=3)


def _separable() -> nn.Module:
    return _pooled(
        nn.Conv2d(2, 4, 3, groups=2),
        nn.InstanceNorm2d(4, affine=True),
        nn.Hardswish(),
        nn.Conv2d(4, 4, 1, bias=False),
        nn.GroupNorm(2, 4),
        channels=4,
    )


def _squeeze() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> Any:
        seen = self.see(x).relu()
        shares = self.up(self.down(seen.mean((2, 3))).relu()).sigmoid()
        return self.last((seen * shares[:, :, None, None]).mean((2, 3)))

    return Through(
        forward,
        see=nn.Conv2d(2, 4, 3),
        down=nn.Linear(4, 2),
        up=nn.Linear(2, 4),
        last=nn.Linear(4, CLASSES),
    )


def _residual() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> Any:
        start = self.first(x)
        inner = self.two(functional.gelu(self.norm(self.one(start))))
        return self.last((start + inner).amax((2, 3)))

    return Through(
        forward,
        first=nn.Conv2d(2, 4, 2, stride=2),
        one=nn.Conv2d(4, 4, 3, padding=1),
        norm=nn.GroupNorm(4, 4),
        two=nn.Conv2d(4, 4, 3, padding=1),
        last=nn.Linear(4, CLASSES),
    )


def _up_and_down() -> nn.Module:
    """A small U-Net."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        wide = self.wide(x).relu()
        narrow = self.narrow(functional.max_pool2d(wide, 2)).relu()
        again = functional.interpolate(narrow, scale_factor=2, mode="nearest")
        return self.last(torch.cat([wide, again], 1)).mean((2, 3))

    return Through(
        forward,
        wide=nn.Conv2d(2, 3, 3, padding=1),
        narrow=nn.Conv2d(3, 3, 3, padding=1),
        last=nn.Conv2d(6, CLASSES, 1),
    )


def _transposed() -> nn.Module:
    """For whose layer no sampler is written."""
    return nn.Sequential(nn.ConvTranspose2d(2, CLASSES, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _in_place() -> nn.Module:
    """Each output of a layer is written over, once by a sum and once by a module."""

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x += 1.0
            return x

    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        Sum(),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
        Sum(),
    )


ENTRIES = (
    Entry("group_norm", classified(_groups, 2, _SIDE, _SIDE)),
    Entry("dilated", classified(_signal, 2, _SIDE)),
    Entry("volume", classified(_volume, 1, 3, 3, 3)),
    Entry("separable", classified(_separable, 2, _SIDE, _SIDE)),
    Entry("squeeze_excite", classified(_squeeze, 2, _SIDE, _SIDE)),
    Entry("residual", classified(_residual, 2, _SIDE, _SIDE)),
    Entry("u_net", classified(_up_and_down, 2, _SIDE, _SIDE)),
    Entry("in_place", classified(_in_place, 1, 6, 6)),
    Entry("transposed", classified(_transposed, 2, 3, 3)),
)
