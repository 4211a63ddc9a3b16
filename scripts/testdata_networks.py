"""The networks of `testdata/`, small enough for Fashion-MNIST."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Fire(nn.Module):
    """SqueezeNet's module (Iandola et al., 2016): squeeze 1×1, then expand 1×1 beside 3×3."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.squeeze(x))
        return torch.cat(
            [functional.relu(self.expand1x1(x)), functional.relu(self.expand3x3(x))], 1
        )


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 with half its widths, for 28×28 gray images, linear at its end."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.ReLU(inplace=False),
            Fire(32, 12, 32), Fire(64, 12, 32), nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(64, 24, 64), Fire(128, 24, 64), nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(128, 32, 96), Fire(192, 32, 96), Fire(192, 48, 128), Fire(256, 48, 128),
        )  # fmt: skip
        self.dropout = nn.Dropout(0.3)
        self.classifier = nn.Conv2d(256, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.classifier(self.dropout(self.features(x)))
        return torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al., 2018): expand 1×1, depthwise 3×3, project 1×1."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*conv_bn(inputs, hidden, 1), nn.ReLU6()]
        layers += [*conv_bn(hidden, hidden, 3, stride, hidden), nn.ReLU6()]
        layers += conv_bn(hidden, outputs, 1)
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 at half width, for 28×28 gray images (strides 2, 1, 2, 2 instead of 32-fold)."""

    # expansion, channels, blocks, stride
    BLOCKS = (
        (1, 8, 1, 1),
        (6, 16, 2, 1),
        (6, 16, 3, 2),
        (6, 32, 4, 2),
        (6, 48, 3, 1),
        (6, 80, 2, 1),
    )

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        channels = 16
        layers = [*conv_bn(1, channels, 3, 2), nn.ReLU6()]
        for expansion, outputs, blocks, stride in self.BLOCKS:
            for block in range(blocks):
                layers.append(
                    InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion)
                )
                channels = outputs
        layers += [*conv_bn(channels, 480, 1), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(480, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.flatten(functional.adaptive_avg_pool2d(self.features(x), 1), 1)
        return self.classifier(self.dropout(x))


class EncoderBlock(nn.Module):
    """The block of a vision transformer (Dosovitskiy et al., 2021), its norms before its layers."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(-1, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(mixed.transpose(1, 2).reshape(-1, tokens, width))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class Encoder(nn.Module):
    """A small vision transformer for 28×28 gray images: 16 patches of 7×7 and a class token."""

    def __init__(
        self, width: int = 64, blocks: int = 4, heads: int = 4, hidden: int = 128, classes: int = 10
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 17, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, hidden) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2 or name in {"token", "positions"}:
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


NETWORKS: dict[str, type[nn.Module]] = {
    "squeezenet": SqueezeNet, "mobilenetv2": MobileNetV2, "encoder": Encoder,
}  # fmt: skip
