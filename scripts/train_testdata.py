#!/usr/bin/env python3
"""Train the two small networks of `testdata/` and cut its images, from Fashion-MNIST.

Run by hand, never by the tests: it needs torch and onnxscript (`pip install onnxq[train]`) and
the images of Debian's package `dataset-fashion-mnist` (MIT licence).

    python scripts/train_testdata.py images
    python scripts/train_testdata.py train squeezenet
    python scripts/train_testdata.py train mobilenetv2

Weight decay acts on the weights of convolutions and of the classifier, not on batch norms or
biases: the usual recipe, and the one that leaves channels of very different range behind.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import math
import struct
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

DATASET = Path("/usr/share/datasets/fashion-mnist")
TESTDATA = Path(__file__).resolve().parent.parent / "testdata"
CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
CALIBRATION_PER_CLASS, TEST_PER_CLASS = 50, 200


def read_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as uint8 (N, 28, 28) and labels as uint8 (N,), in file order."""
    with gzip.open(DATASET / f"{split}-images-idx3-ubyte.gz") as stream:
        _, count, rows, columns = struct.unpack(">4I", stream.read(16))
        images = np.frombuffer(stream.read(), np.uint8).reshape(count, rows, columns)
    with gzip.open(DATASET / f"{split}-labels-idx1-ubyte.gz") as stream:
        stream.read(8)
        labels = np.frombuffer(stream.read(), np.uint8)
    return images, labels


def write_images() -> None:
    """Write the first images of each class as PNG files in class folders."""
    from PIL import Image

    for folder, split, count in (
        ("calibration", "train", CALIBRATION_PER_CLASS),
        ("test", "t10k", TEST_PER_CLASS),
    ):
        images, labels = read_split(split)
        for label, name in enumerate(CLASSES):
            target = TESTDATA / "fashion-mnist" / folder / f"{label}_{name}"
            target.mkdir(parents=True, exist_ok=True)
            for index in np.flatnonzero(labels == label)[:count]:
                Image.fromarray(images[index]).save(target / f"{index:05d}.png", optimize=True)


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


NETWORKS = {"squeezenet": SqueezeNet, "mobilenetv2": MobileNetV2}


def augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the images and shift each batch by up to 2 pixels."""
    mirrored = torch.rand(len(batch), generator=generator) < 0.5
    batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
    top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
    return functional.pad(batch, (2, 2, 2, 2))[:, :, top : top + 28, left : left + 28]


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        hits = sum(
            int((model(batch).argmax(1) == target).sum())
            for batch, target in zip(images.split(500), labels.split(500), strict=True)
        )
    return hits / len(labels)


def per_tensor_accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy with batch norms folded and every convolution's weight int8 per tensor."""
    model = copy.deepcopy(model)
    previous = None
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            gain = (module.weight / torch.sqrt(module.running_var + module.eps))[
                :, None, None, None
            ]
            with torch.no_grad():
                folded = previous.weight * gain
                step = folded.abs().max() / 127
                module.running_mean *= gain.flatten()
                module.running_var.fill_(1 - module.eps)
                module.weight.fill_(1.0)
                previous.weight.copy_(torch.round(folded / step) * step)
        previous = module
    return accuracy(model, images, labels)


def train(name: str, epochs: int, rate: float, decay: float, output: Path) -> None:
    torch.manual_seed(0)
    torch.set_flush_denormal(True)  # channels that die would slow every step down
    generator = torch.Generator().manual_seed(0)
    images, labels = read_split("train")
    x = torch.from_numpy(images.copy())[:, None].float() / 127.5 - 1
    y = torch.from_numpy(labels.copy()).long()
    images, labels = read_split("t10k")
    test_x = torch.from_numpy(images.copy())[:, None].float() / 127.5 - 1
    test_y = torch.from_numpy(labels.copy()).long()

    model = NETWORKS[name]().to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    # MobileNetV2 is trained as its paper does: RMSProp with momentum and a rate that decays by 2 %
    # an epoch. At that rate the weights outrun the running statistics of the batch norms, so those
    # are measured again on training images after each epoch.
    paper = name == "mobilenetv2"
    optimizer: torch.optim.Optimizer = (
        torch.optim.RMSprop(groups, lr=rate, alpha=0.9, momentum=0.9, eps=1e-3)
        if paper
        else torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    )
    batch = 128
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1.0, (step + 1) / 500)
            * (0.98 ** (step / 468) if paper else 0.5 * (1 + math.cos(math.pi * step / steps)))
        ),
    )
    for epoch in range(epochs):
        started = time.monotonic()
        model.train()
        for indices in torch.randperm(len(x), generator=generator).split(batch):
            if len(indices) < batch:
                continue
            inputs = augment(x[indices], generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                outputs = model(inputs)
            loss = functional.cross_entropy(outputs.float(), y[indices], label_smoothing=0.0)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        result = copy.deepcopy(model)
        if paper:
            torch.optim.swa_utils.update_bn(
                x[torch.randperm(len(x), generator=generator)[:12800]].split(128), result
            )
        print(
            f"epoch {epoch + 1}/{epochs} loss {float(loss.detach()):.3f} "
            f"test {accuracy(result, test_x, test_y):.4f} "
            f"weights int8 per tensor {per_tensor_accuracy(result, test_x[:2000], test_y[:2000]):.4f} "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
        export(result, output)


def export(model: nn.Module, output: Path) -> None:
    """Write the ONNX file, batch norms unfolded and dynamic in its batch."""
    from onnxscript import ir, optimizer

    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format).eval()
    program = torch.onnx.export(
        model, (torch.zeros(2, 1, 28, 28),), dynamo=True, opset_version=18, optimize=False,
        input_names=["image"], output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False,
    )  # fmt: skip
    # The exporter's own optimization would fold the batch norms.
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    ir.save(program.model, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("images")
    training = commands.add_parser("train")
    training.add_argument("network", choices=sorted(NETWORKS))
    training.add_argument("--epochs", type=int, default=30)
    training.add_argument("--rate", type=float, default=0.1)
    training.add_argument("--decay", type=float, default=5e-4)
    training.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.command == "images":
        write_images()
        return
    output = options.output or TESTDATA / f"{options.network}.onnx"
    train(options.network, options.epochs, options.rate, options.decay, output)


if __name__ == "__main__":
    main()
