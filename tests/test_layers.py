"""The folders follow the data: a package imports only from those before it."""

import ast
from collections.abc import Container
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "onnxq"
ORDER = ("errors", "refusal", "suggest", "python_files", "records", "formats", "options", "progress", "shown", "cluster", "closeness", "model", "data", "calibration", "gradients", "targets", "equalization",
         "quantization", "emulation", "validation", "commands", "report", "api", "cli")  # fmt: skip
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")


def place(module: str) -> int:
    """Position of a module's top folder in the order; the package itself may be imported by all."""
    parts = module.split(".")
    return ORDER.index(parts[1]) if len(parts) > 1 else -1


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("onnxq"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= set(names) if node.module == "onnxq" else {node.module}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("onnxq")}
    return {name for name in found if name != "onnxq.__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if top == "__init__":
        return
    later = {name for name in imported(path) if place(name) > ORDER.index(top)}
    assert not later, f"{path} imports {later}, which come after it"


def test_no_two_modules_import_each_other():
    """Lazily neither; all may import the package itself."""
    modules = {module_of(path): path for path in FILES}
    needs = {name: needed(path, modules) - {name} for name, path in modules.items()}
    while free := {name for name, others in needs.items() if not others & needs.keys()}:
        needs = {name: others for name, others in needs.items() if name not in free}
    assert not needs, f"there is a circle among {sorted(needs)}"


def module_of(path: Path) -> str:
    parts = ("onnxq", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def needed(path: Path, modules: Container[str]) -> set[str]:
    """The modules that a file imports; of a package only what is named, if that is a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in modules and name != "onnxq"}


def test_only_rewrite_imports_graphsurgeon():
    users = {p.name for p in FILES if "import onnx_graphsurgeon" in p.read_text(encoding="utf-8")}
    assert users == {"rewrite.py"}
