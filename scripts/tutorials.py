"""Type the tutorials: every shell block of docs/tutorials/*.md, as it stands there.

    python scripts/tutorials.py [PAGE…]

All pages run in one fresh environment, on a copy of the files that git knows, each page in one shell. The first
command that fails ends it. Packages come by pip, so it needs the network.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from try_tools import ROOT, checkout, environment

PAGES = ROOT / "docs" / "tutorials"
SHELL = ["bash", "--noprofile", "--norc", "-euo", "pipefail"]


def typed(page: Path) -> str:
    """What a reader types, in order."""
    text = page.read_text(encoding="utf-8")
    return "".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


def main() -> None:
    names = sys.argv[1:] or sorted(page.stem for page in PAGES.glob("*.md"))
    with tempfile.TemporaryDirectory(prefix="onnxq.") as folder:
        place = checkout(Path(folder) / "onnxq", without=("tests/",))
        env = environment(Path(folder) / "python", PIP_QUIET="2", PIP_DISABLE_PIP_VERSION_CHECK="1")
        for name in names:
            began = time.monotonic()
            print(f"== {name}", flush=True)
            script = typed(PAGES / f"{name}.md")
            done = subprocess.run([*SHELL, "-c", script], cwd=place, env=env, check=False)
            if done.returncode:
                sys.exit(f"{name}: exit code {done.returncode}")
            print(f"{name}: works, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
