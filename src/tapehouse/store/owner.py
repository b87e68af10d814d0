"""One process owns a data folder; everybody else finds it and talks to it through its Unix socket.

The lock is an `flock` on `owner.lock`, which the kernel lets go of when the owner dies, however it dies. The file's
text says who the owner is; it is only believed while the lock is held.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from tapehouse.errors import InvalidSetting, StoreFull, StoreLocked, StoreReadOnly

LOCK_FILE = "owner.lock"
_PROBE_PATIENCE_S = 0.5
_LONGEST_SOCKET_PATH = 100  # the kernel's limit is 107 bytes


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who owns a folder. `started` is seconds since the epoch; `address` is set once it serves HTTP."""

    pid: int
    command: str
    started: float
    socket: str
    address: str | None = None

    def __str__(self) -> str:
        serving = f", serving {self.address}" if self.address else ""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.started))
        return f"process {self.pid} ({self.command}{serving}, since {since} UTC)"


def socket_path(folder: Path) -> Path:
    """Where the owner of that folder listens: inside it, or in a private temporary folder if that path is too long."""
    inside = folder.resolve() / "tapehouse.sock"
    if len(os.fsencode(inside)) <= _LONGEST_SOCKET_PATH:
        return inside
    digest = hashlib.sha256(os.fsencode(inside)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tapehouse-{os.getuid()}" / f"{digest}.sock"


class Ownership:
    """The lock itself: held from construction until `release`."""

    def __init__(self, folder: Path, command: str | None = None) -> None:
        """Raises `StoreLocked`, which names the owner, and `StoreReadOnly` when the folder cannot be written."""
        self.folder = folder
        self._fd = _open_lock(folder)
        self.owner = Owner(
            pid=os.getpid(),
            command=command or " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]]) or "python",
            started=time.time(),
            socket=str(socket_path(folder)),
        )
        self._prepare_socket_folder()
        self._write()

    def announce(self, address: str) -> None:
        """Say where HTTP is served, for those who look for the owner."""
        self.owner = msgspec.structs.replace(self.owner, address=address)
        self._write()

    def release(self) -> None:
        """Give the folder up; idempotent."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def _write(self) -> None:
        data = msgspec.json.encode(self.owner)
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    def _prepare_socket_folder(self) -> None:
        parent = Path(self.owner.socket).parent
        if parent != self.folder.resolve():
            parent.mkdir(mode=0o700, exist_ok=True)
            if parent.stat().st_uid != os.getuid() or parent.stat().st_mode & 0o077:
                raise InvalidSetting(
                    f"{parent} must belong to this user alone, since the socket of {self.folder} goes there"
                )


def find_owner(folder: Path) -> Owner | None:
    """Who owns the folder now, or None when nobody does."""
    try:
        fd = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except NotADirectoryError as exc:
        raise InvalidSetting(f"{folder} is not a folder", folder=str(folder)) from exc
    except PermissionError as exc:
        raise StoreReadOnly(f"cannot look at {folder / LOCK_FILE}: {exc.strerror}", folder=str(folder)) from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(fd)
    else:
        return None
    finally:
        os.close(fd)


def _read(fd: int) -> Owner | None:
    # An owner that has just taken the lock may not have written its name yet.
    for _ in range(10):
        try:
            return msgspec.json.decode(os.pread(fd, 4096, 0), type=Owner)
        except msgspec.DecodeError:
            time.sleep(0.02)
    return Owner(pid=0, command="unknown", started=0.0, socket="")


def _open_lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise _unusable(folder, exc) from exc
    # Somebody who only looks (`find_owner`) holds the lock for an instant, so one refusal is not an answer.
    deadline = time.monotonic() + _PROBE_PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            owner = _read(fd)
            os.close(fd)
            raise StoreLocked(f"{folder} is in use by {owner}", folder=str(folder), owner=str(owner)) from None
        else:
            return fd


def _unusable(folder: Path, exc: OSError) -> InvalidSetting | StoreFull | StoreReadOnly:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"no space left for {folder}", folder=str(folder))
    if exc.errno in (errno.EEXIST, errno.ENOTDIR):
        return InvalidSetting(f"{folder} is not a folder", folder=str(folder))
    return StoreReadOnly(f"cannot write to the folder {folder}: {exc.strerror}", folder=str(folder))
