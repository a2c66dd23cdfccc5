"""torchvision's models without BatchNorm, of few channels where their makers allow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from tests.support.zoo.entry import Entry
from tests.support.zoo.making import CLASSES, classified


def _groups(channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels)


def _squeeze() -> Any:
    from torchvision.models import squeezenet1_1

    model = squeezenet1_1()
    model.features = model.features[:5]
    model.classifier[1] = nn.Conv2d(128, CLASSES, 1)
    return model


def _vit() -> Any:
    from torchvision.models import VisionTransformer

    return VisionTransformer(8, 4, 1, 2, 8, 12, num_classes=CLASSES)


def _convnext() -> Any:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    blocks = [CNBlockConfig(4, 8, 1), CNBlockConfig(8, None, 1)]
    return ConvNeXt(blocks, stochastic_depth_prob=0.0, num_classes=CLASSES)


def _efficient() -> Any:
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    blocks = [MBConvConfig(1, 3, 1, 8, 8, 1, 1.0, 1.0), MBConvConfig(2, 3, 2, 8, 8, 2, 1.0, 1.0)]
    return EfficientNet(
        blocks,
        0.2,
        stochastic_depth_prob=0.4,
        num_classes=CLASSES,
        norm_layer=_groups,
        last_channel=8,
    )


def _mobile_2() -> Any:
    from torchvision.models import MobileNetV2

    return MobileNetV2(CLASSES, 0.1, [[1, 8, 1, 1], [2, 8, 2, 2]], norm_layer=_groups, dropout=0.2)


def _mobile_3() -> Any:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    blocks = [InvertedResidualConfig(8, 3, 8, 8, True, "HS", 2, 1, 1.0)]
    return MobileNetV3(blocks, 8, CLASSES, norm_layer=_groups)


def _dense() -> Any:
    from opacus.validators import ModuleValidator
    from torchvision.models import DenseNet

    return ModuleValidator.fix(DenseNet(4, (2, 2), 8, num_classes=CLASSES))


def resnet(norm_layer: Callable[[int], nn.Module] | None) -> Any:
    """The first layers of a ResNet."""
    from torchvision.models import ResNet
    from torchvision.models.resnet import BasicBlock

    model = ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=norm_layer)
    model.layer2 = model.layer3 = model.layer4 = nn.Identity()
    model.fc = nn.Linear(64, CLASSES)
    return model


ENTRIES = (
    Entry("resnet", classified(lambda: resnet(_groups), 3, 16, 16)),
    Entry("vit_of_torchvision", classified(_vit, 3, 8, 8)),
    Entry("convnext", classified(_convnext, 3, 8, 8)),
    Entry("efficientnet", classified(_efficient, 3, 8, 8), random=True),
    Entry("mobilenet_2", classified(_mobile_2, 3, 8, 8), random=True),
    Entry("mobilenet_3", classified(_mobile_3, 3, 8, 8), random=True),
    Entry("densenet", classified(_dense, 3, 16, 16)),
    Entry("squeezenet", classified(_squeeze, 3, 16, 16), random=True),
)
