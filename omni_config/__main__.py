"""``omni``, and ``python -m omni_config``."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Entry point of the command.

    ``omni check FILE...`` without options, which editors and hooks run at every save, goes straight to the check: the
    rest of the command line takes longer to set up than the check itself.
    """
    command, *names = sys.argv[1:] or [""]
    try:
        if command == "check" and names and not any(name.startswith("-") for name in names):
            gc.set_threshold(
                100_000, 50, 50
            )  # what is imported stays: to look for garbage in it takes a tenth of a check
            from omni_config.output.run_check import run

            code = run(names)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # to free each object takes another tenth
        from omni_config.cli import COMMANDS, app

        completed = os.environ.get("_TYPER_COMPLETE_ARGS", os.environ.get("COMP_WORDS", "")).split()
        command = completed[1] if len(completed) > 1 else command  # what a shell asks about
        app([command] if command in COMMANDS else COMMANDS)(prog_name="omni")
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output (head, say) has gone; that is no error of ours
        sys.exit(0)


if __name__ == "__main__":
    main()
