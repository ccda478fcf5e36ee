"""How a command ends: every failure becomes one line on standard error and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable

from spad.errors import Cancelled, SpadError

DONE, OUR_FAULT, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

_SURROUNDINGS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT),
    errno.ENAMETOOLONG,
}


def exit_code_of(command: str, work: Callable[[], int | None]) -> int:
    """Run a command's work and give its exit code; None from the work means done."""
    try:
        code = work() or DONE
        sys.stdout.flush()
        return code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else DONE
    except (KeyboardInterrupt, Cancelled):
        return _say(command, "interrupted", INTERRUPTED)
    except SpadError as error:
        return _say(command, str(error), WRONG_INPUT)
    except BrokenPipeError:
        # The reader of our output has left, as `| head` does; nothing more can be printed there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno in _SURROUNDINGS and error.filename:
            return _say(command, f"{error.filename}: {error.strerror}", WRONG_INPUT)
        return _confess(command, error)
    except Exception as error:
        return _confess(command, error)


def _say(command: str, message: str, code: int) -> int:
    print(f"{command}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _confess(command: str, error: Exception) -> int:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix="spad-error-", suffix=".txt", delete=False
    ) as file:
        file.write(f"{' '.join(sys.argv)}\n\n")
        traceback.print_exception(error, file=file)
    message = f"an error of ours ({type(error).__name__}: {error}); details are in {file.name}"
    return _say(command, message, OUR_FAULT)
