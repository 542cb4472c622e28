"""The command `kregs`: its words, what each does, and how failures become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from kregs.cli.options import check_options
from kregs.cli.parser import make_parser
from kregs.cli.terminal import BAD_USE, BROKEN, DONE, INTERRUPTED, complain
from kregs.files import is_disk_full

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 broken, 2 bad use, 130 interrupted.

    Args:
        argv: the words after `kregs`. Default: those of this process.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        # argparse knows commands of one word only
        words = [" ".join(argv[:2]), *argv[2:]] if argv[:2] == ["tune", "table"] else argv
        arguments = make_parser().parse_args(words)
        wrong = check_options(arguments)
        if wrong:
            return complain(wrong, BAD_USE)
        return arguments.command(arguments, argv)
    except KeyboardInterrupt:
        return complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # `kregs show NAME | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except SystemExit as stop:  # argparse has said what it had to
        return stop.code if isinstance(stop.code, int) else BAD_USE
    except (ValueError, TypeError, OSError) as error:
        message = str(error).replace("`directory`", "`--output`")  # its name in Python
        return complain(message, BROKEN if is_disk_full(error) else BAD_USE)
    except RuntimeError as error:
        from kregs.search.failures import NothingCompleted  # loads no TensorFlow

        if not isinstance(error, NothingCompleted):
            raise
        return complain(str(error).replace("max_time", "--max-time"), BAD_USE)
    except Exception as error:
        if is_disk_full(error):
            return complain(str(error), BROKEN)
        if "URL fetch failure" not in str(error):  # what keras.datasets raises without a network
            raise
        return complain(f"the data could not be downloaded: {error}", BROKEN)
