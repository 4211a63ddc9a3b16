"""The command line: the only package that talks to people."""

import os
import sys

SPIN = "16"
"""Power of two of the cycles that numpy's threads wait for the next product in a loop, in place of
26, about 20 ms: that was a tenth of the CPU time of `quantize`, and nothing was faster for it."""


def main() -> None:
    """Run the command that the process's arguments name, and exit with its code."""
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", SPIN)
    try:
        if sys.stdout.isatty() and (len(sys.argv) == 1 or {"-h", "--help"} & set(sys.argv)):
            # rich-click takes as long to import as all the rest of the command line; only people
            # who read help on a terminal see it.
            import rich_click.rich_click as style
            from rich_click.patch import patch

            style.OPTIONS_TABLE_COLUMN_TYPES = ["opt_all_metavar", "help"]
            patch()
            from onnxq.cli.help import drawn_groups

            style.OPTION_GROUPS = drawn_groups()
        from onnxq.cli.group import onnxq
        from onnxq.cli.signals import Ended, leave

        try:
            onnxq()
        except Ended as ended:
            leave(ended.exit_code)
    except KeyboardInterrupt:
        # While the imports run; later ones are answered with a message.
        sys.exit(130)
