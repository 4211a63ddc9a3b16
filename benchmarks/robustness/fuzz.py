"""Damaged models, calibration files, arrays, images and archives: refused in one line, or done.

    python benchmarks/robustness/fuzz.py --number 100000 --json fuzz.json

Case i of a kind depends on the seed and i alone. A case goes through the command line, in a child
process with a limit of time and memory; it fails where the answer is exit code 5, more than one
line, an output in spite of a refusal, or none at all.
"""

from __future__ import annotations

import io
import random
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import Message
from isolated import Lost, isolated
from onnx import TensorProto, helper, numpy_helper
from scoreboard import Outcome, arguments, publish, reasons, report_progress

INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40,
               (1 << 63) - 1, -1, -2, -(1 << 31), -(1 << 63))  # fmt: skip

SECONDS = 20.0
"""Time limit of a case; the slowest takes a fraction of a second."""

MEMORY = 4 << 30
"""Address space of the child, most of it for the libraries it loads."""


# --- mutations of bytes ----------------------------------------------------------------------


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The bytes with one to eight changes."""
    result = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if not result:
            break
        at = chance.randrange(len(result))
        _change(result, at, chance)
    return bytes(result)


def _change(result: bytearray, at: int, chance: random.Random) -> None:
    length = min(chance.choice((1, 2, 4, 8, 64)), len(result) - at)
    match chance.randrange(7):
        case 0:
            result[at] ^= 1 << chance.randrange(8)
        case 1:
            result[at] = chance.randrange(256)
        case 2:
            del result[at:]
        case 3:
            del result[at : at + length]
        case 4:
            result[at:at] = result[at : at + length]
        case 5:
            result[at : at + length] = bytes(chance.randrange(256) for _ in range(length))
        case 6:
            number = chance.choice(INTERESTING) & ((1 << 64) - 1)
            result[at : at + length] = number.to_bytes(8, chance.choice(("little", "big")))[:length]


# --- mutations that keep the container valid ---------------------------------------------------


def mutated_model(content: bytes, chance: random.Random) -> bytes:
    """A model with some fields changed: valid protobuf, most often an invalid model."""
    model = onnx.load_model_from_string(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        _change_message(chance.choice(_messages(model)), chance)
    return bytes(model.SerializeToString())


def _messages(message: Message) -> list[Message]:
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if hasattr(value, "add") else [value]:
                found += _messages(each)
    return found


def _change_message(message: Message, chance: random.Random) -> None:
    fields = message.ListFields()
    if not fields:
        return
    field, value = chance.choice(fields)
    if hasattr(value, "append"):
        _change_list(value, chance)
    elif chance.random() < 0.15:
        message.ClearField(field.name)
    elif field.message_type is None:
        new = _value_like(value, chance, [f.number for f in field.enum_type.values]
                          if field.enum_type else [])  # fmt: skip
        setattr(message, field.name, new)


def _change_list(values: object, chance: random.Random) -> None:
    items = list(values)  # type: ignore[call-overload]
    at = chance.randrange(len(items))
    match chance.randrange(4):
        case 0:
            del items[at]
        case 1:
            items.insert(chance.randrange(len(items) + 1), items[at])
        case 2:
            chance.shuffle(items)
        case 3 if not isinstance(items[at], Message):
            items[at] = _value_like(items[at], chance, [])
    del values[:]  # type: ignore[attr-defined]
    values.extend(items)  # type: ignore[attr-defined]


def _value_like(value: object, chance: random.Random, allowed: list[int]) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        if allowed:
            return chance.choice(allowed)
        fit = [i for i in (*INTERESTING, value + 1) if -(1 << 31) <= i < 1 << 31]
        return chance.choice(fit)
    if isinstance(value, float):
        return chance.choice((0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-45))
    if isinstance(value, bytes):
        return mutated(value, chance)
    names = (
        "",
        "x",
        "y",
        "h",
        "r",
        "w1",
        "Relu",
        "Conv",
        "Add",
        "Reshape",
        "\x1b[2J",
        "\n",
        "é" * 9,
    )
    return chance.choice((*names, str(value) * 2, str(value)[:-1]))


def mutated_zip(content: bytes, chance: random.Random) -> bytes:
    """An archive with one member damaged, or gone, or there twice; its checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = chance.randrange(len(members))
    name, old = members[at]
    match chance.randrange(6):
        case 0:
            del members[at]
        case 1:
            members[at] = chance.choice(("../x.npy", "labels.npy", "é", name.upper())), old
        case _:
            members[at] = name, mutated(old, chance)
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w") as archive:
        for name, each in members:
            archive.writestr(name, each)
    return result.getvalue()


def mutated_png(content: bytes, chance: random.Random) -> bytes:
    """An image with damaged chunks whose checksums are right."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append([content[at + 4 : at + 8], content[at + 8 : at + 8 + length]])
        at += length + 12
    chosen = chance.choice(chunks)
    if chosen[0] == b"IDAT" and chance.random() < 0.5:
        chosen[1] = zlib.compress(mutated(zlib.decompress(chosen[1]), chance))
    else:
        chosen[1] = mutated(chosen[1] or b"\0", chance)
    if chance.random() < 0.2:
        chance.shuffle(chunks)
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def mutated_tar(content: bytes, chance: random.Random) -> bytes:
    """An archive with a damaged header whose checksum is right."""
    result = bytearray(content)
    at = 512 * chance.randrange(max(1, len(result) // 512 - 1))
    block = bytearray(mutated(bytes(result[at : at + 512]), chance).ljust(512, b"\0")[:512])
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    result[at : at + 512] = block
    return bytes(result)


# --- the valid files they start from -----------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What is fuzzed, the file it starts from, and the command lines that read it.

    Attributes:
        file: its name in the folder of valid files.
        mutations: each used equally often.
        commands: `{file}` is the damaged one, `{in}` the folder of valid ones, `{out}` the output.
    """

    name: str
    file: str
    mutations: tuple[Callable[[bytes, random.Random], bytes], ...]
    commands: tuple[tuple[str, ...], ...]


IMAGES = ("--preprocess", "unit,color=rgb")
KINDS = (
    Kind("model", "m.onnx", (mutated, mutated_model, mutated_model), (
        ("inspect", "{file}", "--json"),
        ("equalize", "{file}", "-o", "{out}.onnx"),
        ("quantize", "{file}", "--data", "{in}/x.npz", "-o", "{out}.onnx"),
        ("quantize", "{file}", "--data", "random:4", "--target", "cpu", "-o", "{out}.onnx"),
    )),
    Kind("quantized model", "q.onnx", (mutated, mutated_model, mutated_model), (
        ("inspect", "{file}"),
        ("emulate", "{file}", "--data", "{in}/x.npz", "-o", "{out}.npz"),
        ("validate", "{in}/m.onnx", "{file}", "--data", "{in}/x.npz", "--layers"),
        ("explain", "{file}", "conv1"),
    )),
    Kind("calibration", "c.calib", (mutated, mutated_zip, mutated_zip), (
        ("quantize", "{in}/m.onnx", "--calibration", "{file}", "-o", "{out}.onnx"),
        ("equalize", "{in}/m.onnx", "--calibration", "{file}", "-o", "{out}.onnx"),
        ("merge", "{file}", "{in}/c2.calib", "-o", "{out}.calib"),
    )),
    Kind("npz", "x.npz", (mutated, mutated_zip, mutated_zip),
         (("calibrate", "{in}/m.onnx", "--data", "{file}", "-o", "{out}.calib"),)),
    Kind("png", "images/a.png", (mutated, mutated_png, mutated_png),
         (("calibrate", "{in}/m.onnx", "--data", "{folder}", *IMAGES, "-o", "{out}.calib"),)),
    Kind("tar", "x.tar", (mutated, mutated_tar),
         (("calibrate", "{in}/m.onnx", "--data", "{file}", *IMAGES, "-o", "{out}.calib"),)),
)  # fmt: skip


def write_inputs(folder: Path) -> None:
    """A tiny network and one valid file of each kind."""
    from PIL import Image

    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)

    node = helper.make_node
    graph = helper.make_graph(
        [node("Conv", ["x", "w1"], ["h"], "conv1"), node("Relu", ["h"], ["r"], "relu1"),
         node("Conv", ["r", "w2", "b2"], ["c"], "conv2"),
         node("GlobalAveragePool", ["c"], ["p"], "pool"), node("Flatten", ["p"], ["y"], "flat")],
        "fuzz",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
        [weight("w1", 16, 3, 1, 1), weight("w2", 16, 16, 2, 2), weight("b2", 16)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "m.onnx")
    np.savez(folder / "x.npz", x=generator.standard_normal((12, 3, 4, 4)).astype(np.float32),
             labels=np.arange(12) % 2)  # fmt: skip
    (folder / "images").mkdir()
    pixels = generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "images" / "a.png")
    with tarfile.open(folder / "x.tar", "w") as archive:
        for number in range(2):
            for name, content in ((f"{number}.png", (folder / "images" / "a.png").read_bytes()),
                                  (f"{number}.cls", b"1")):  # fmt: skip
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    model_and_data = (str(folder / "m.onnx"), "--data", str(folder / "x.npz"))
    for words in (
        ["calibrate", *model_and_data, "--batch-size", "2", "--shard", "1/2", "-o", "c.calib"],
        ["calibrate", *model_and_data, "--batch-size", "2", "--shard", "2/2", "-o", "c2.calib"],
        ["quantize", *model_and_data, "-o", "q.onnx"],
    ):
        code, text = run_command([*words[:-1], str(folder / words[-1])])
        if code:
            raise SystemExit(text)


# --- one case --------------------------------------------------------------------------------


def run_command(words: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command line, in this process."""
    from click.testing import CliRunner
    from onnxq.cli.group import onnxq

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(onnxq, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 5, f"{type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.stderr


def examine(inputs: Path, folder: Path, kind: Kind, seed: int) -> Outcome:
    """Damage a file and give it to one of its commands."""
    chance = random.Random(f"{kind.name} {seed}")  # of a string: the same on every machine
    content = chance.choice(kind.mutations)((inputs / kind.file).read_bytes(), chance)
    command = chance.choice(kind.commands)
    found, detail = answer(inputs, folder, kind, command, content)
    prefix = "" if found == "refused" else f"{command[0]}: "
    return Outcome(f"{kind.name} {seed}", f"onnxq: {kind.name}", found, prefix + detail)


def answer(
    inputs: Path, folder: Path, kind: Kind, command: tuple[str, ...], content: bytes
) -> tuple[str, str]:
    """What a command makes of a file with this content: right, refused, …, and the words for it."""
    damaged = folder / "damaged"
    damaged.mkdir(exist_ok=True)
    for path in [*damaged.iterdir(), *folder.glob("out*"), *folder.glob(".out*")]:
        path.unlink()
    file = damaged / Path(kind.file).name
    file.write_bytes(content)
    out = folder / "out"
    places = {"file": file, "folder": damaged, "in": inputs, "out": out}
    code, text = run_command([word.format(**places) for word in command])
    written = [p.name for p in folder.iterdir() if p != damaged]
    if code in {0, 1}:
        return "right", "done"
    lines = text.strip().splitlines()
    if code not in {2, 3, 4}:
        return "traceback", f"{code}: {' '.join(lines)}"
    if written:
        return "partial", str(written)
    if sum(line.startswith("error: ") for line in lines) != 1 or not lines[-1].startswith("error:"):
        return "traceback", f"{len(lines)} lines: {lines}"
    return "refused", lines[-1]


def scoreboard(number: int, seed: int) -> list[Outcome]:
    """`number` cases, spread over the kinds."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="onnxq-fuzz.") as name:
        inputs, folder = Path(name) / "in", Path(name) / "work"
        inputs.mkdir()
        folder.mkdir()
        # The valid files are made in a child too: threads of ONNX Runtime do not survive a fork.
        for result in isolated(lambda _: write_inputs(inputs), [None], seconds=120):
            if isinstance(result, Lost):
                raise SystemExit(f"the valid files could not be made: {result}")
        cases = [
            (KINDS[i % len(KINDS)], seed * 10_000_000 + i // len(KINDS)) for i in range(number)
        ]
        work = isolated(lambda case: examine(inputs, folder, *case), cases, seconds=SECONDS,
                        memory=MEMORY)  # fmt: skip
        for at, result in enumerate(work):
            kind, case_seed = cases[at]
            if isinstance(result, Lost):
                case, tool = f"{kind.name} {case_seed}", f"onnxq: {kind.name}"
                outcomes.append(Outcome(case, tool, result.kind, result.detail))
            else:
                outcomes.append(result)
            report_progress(at + 1, number, every=2000)
    return outcomes


def main() -> int:
    options = arguments(__doc__ or "", number=2000, seed=0).parse_args()
    outcomes = scoreboard(options.number, options.seed)
    code = publish("Fuzzing", outcomes, json_file=options.json, cases=options.number,
                   seed=options.seed, limit_s=SECONDS, memory_MiB=MEMORY >> 20)  # fmt: skip
    print("\nThe most frequent refusals:")
    for reason, count in reasons(outcomes, "refused").most_common(12):
        print(f"{count:6} {reason}")
    return code


if __name__ == "__main__":
    sys.exit(main())
