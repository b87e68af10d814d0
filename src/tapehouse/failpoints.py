"""Named places at which a test kills, stops or fails the process, to show that what stands there survives it.

`_TAPEHOUSE_FAILPOINTS=name=kill;name=error;name=full` arms them: `kill` sends SIGKILL to this process, `error` raises
an I/O error, `full` raises the error of a full disk, and `kill@3` acts on the third time that the place is passed.
Disarmed, a failpoint costs one look-up in an empty dictionary.
"""

from __future__ import annotations

import errno
import os
import signal

ENVIRONMENT = "_TAPEHOUSE_FAILPOINTS"


def _armed(text: str) -> dict[str, tuple[str, int]]:
    armed = {}
    for part in filter(None, text.split(";")):
        name, _, action = part.partition("=")
        action, _, count = action.partition("@")
        armed[name] = (action, int(count or 1))
    return armed


_ARMED = _armed(os.environ.get(ENVIRONMENT, ""))


def failpoint(name: str) -> None:
    """Act as armed for that name, or do nothing."""
    if not _ARMED or name not in _ARMED:
        return
    action, countdown = _ARMED[name]
    if countdown > 1:
        _ARMED[name] = (action, countdown - 1)
        return
    del _ARMED[name]
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    code = errno.ENOSPC if action == "full" else errno.EIO
    raise OSError(code, f"{os.strerror(code)} (failpoint {name})")
