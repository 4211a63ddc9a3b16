"""Build the wheel and the sdist, and check what a stranger would get. Run by `make package`.

    python scripts/check_package.py [FOLDER]     # dist/ by default; what lies there goes

Fails on a file that does not belong there, on one that is missing, on metadata that an index would
refuse, and on a wheel that does not run by itself.
"""

import email
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 2_000_000
"""Bytes of either archive. The images and models of testdata/ are far more."""

SHIPPED = {".py", ".toml", ".typed", ".html", ".js", ".css", ".txt"}
"""Kinds of files that belong to the package."""


def build(folder: Path) -> tuple[Path, Path]:
    shutil.rmtree(folder, ignore_errors=True)
    run("-m", "build", "--outdir", folder, ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    run("-m", "twine", "check", "--strict", wheel, sdist)
    return wheel, sdist


def run(*arguments: object, python: object = sys.executable) -> str:
    command = list(map(str, (python, *arguments)))
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(f"{' '.join(command)}:\n{found.stdout}{found.stderr}")
    return found.stdout


def of_package() -> set[str]:
    """The files of onnxq/ that git knows, or that lie there where this is no checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "onnxq"], capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout.split()
    return set(listed) or {
        str(path.relative_to(ROOT))
        for path in (ROOT / "onnxq").rglob("*")
        if path.suffix in SHIPPED
    }


def faults_of_wheel(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(archive.read(metadata))
    held = {name for name in names if ".dist-info/" not in name}
    needed = told.get_all("Requires-Dist") or []
    faults = [f"{name} is missing" for name in sorted(of_package() - held)]
    faults += [f"{name} does not belong there" for name in sorted(held - of_package())]
    if not any(name.endswith("licenses/LICENSE") for name in names):
        faults.append("no LICENSE")
    for each in needed:
        if each.startswith("onnxruntime") and "extra ==" not in each:
            faults.append(f"it brings an ONNX Runtime to everybody: {each}")
    return faults


def faults_of_sdist(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    needed = {*of_package(), "LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"}
    faults = [f"{name} is missing" for name in sorted(needed - names)]
    unwanted = ("testdata/", "tests/", "benchmarks/", "demo/")
    return faults + [f"{name} does not belong there" for name in names if name.startswith(unwanted)]


def faults_of_install(wheel: Path) -> list[str]:
    """What goes wrong where the wheel alone is unpacked; its dependencies are those of here."""
    with tempfile.TemporaryDirectory() as name:
        venv.create(name, with_pip=False, system_site_packages=False)
        python = Path(name) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(Path(name) / "wheel")
        paths = [str(Path(name) / "wheel"), *(path for path in sys.path if "site-packages" in path)]
        code = (
            f"import sys; sys.path[:0] = {paths!r}\n"
            "import onnxq; from onnxq.targets.read import shipped_targets\n"
            f"assert onnxq.__file__.startswith({paths[0]!r}), onnxq.__file__\n"
            "for name in onnxq.__all__: getattr(onnxq, name)\n"
            "assert shipped_targets()\n"
        )
        found = subprocess.run(
            [python, "-I", "-c", code], capture_output=True, text=True, check=False
        )
    return [f"it does not run: {found.stderr.strip()}"] if found.returncode else []


def main(folder: str = "dist") -> None:
    wheel, sdist = build(Path(folder))
    faults = [
        *(
            f"{wheel.name}: {fault}"
            for fault in (*faults_of_wheel(wheel), *faults_of_install(wheel))
        ),
        *(f"{sdist.name}: {fault}" for fault in faults_of_sdist(sdist)),
        *(
            f"{each.name}: {each.stat().st_size:,} bytes are more than {LARGEST:,}"
            for each in (wheel, sdist)
            if each.stat().st_size > LARGEST
        ),
    ]
    if faults:
        sys.exit("\n".join(faults))
    for each in (wheel, sdist):
        print(f"{each}: {each.stat().st_size / 1000:.0f} kB, checked")


if __name__ == "__main__":
    main(*sys.argv[1:])
