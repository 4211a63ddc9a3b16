"""Where a model goes that the user gave no name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def beside(model: Path, scheme: str) -> Path:
    """MODEL.SCHEME.onnx beside the model; what lies there is written over if onnxq wrote it.

    Raises:
        UsageError: something else lies there.
    """
    path = model.with_name(f"{model.stem}.{scheme}.onnx")
    require_own(path)
    return path


def require_own(path: Path) -> None:
    """Raise `UsageError` where something lies there that onnxq did not write."""
    if path.is_file() and not _is_own(path):
        raise UsageError(
            f"{path} is there already, and onnxq did not write it",
            hint="name another file with -o OUT.onnx",
        )


def _is_own(path: Path) -> bool:
    import onnx
    from google.protobuf.message import DecodeError

    from onnxq.quantization.details import METADATA_KEY

    try:
        proto = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError, ValueError):
        return False
    return any(entry.key == METADATA_KEY for entry in proto.metadata_props)
