"""A new folder that has its name only when it is complete.

It is made beside the target under a name that begins with a dot, and renamed at the end. Its maker holds a lock on it, which the kernel
releases however the process ends: so a later export knows what an earlier one left that was killed, and deletes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import StoreError, UserError
from engine.rundir import sync_folder

CONTENT = frozenset({"README.md", "data", "rejections"})
"""What an export consists of; a folder with anything else is not replaced."""
_SUFFIX = ".exporting"


@contextmanager
def new_folder(target: Path, *, overwrite: bool) -> Generator[Path]:
    """An empty folder, which becomes `target` when the block is left in peace and is deleted when it is not.

    UserError if something is there that may not be replaced: anything but an empty folder, or, with `overwrite`, an earlier export.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - `resolve` would put the folder at the end of a link, and replace the link
    check_target(target, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(target)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_SUFFIX, dir=target.parent))
    except OSError as error:
        raise UserError(f"cannot write beside {target}: {error.strerror}; choose another folder") from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
        _put_in_place(folder, target, overwrite=overwrite)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}; nothing of it was kept") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def check_target(target: Path, *, overwrite: bool) -> None:
    """UserError as above; changes nothing."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise UserError(f"{target} is there already and is no folder; give the name of a new one")
    found = {path.name for path in target.iterdir()}
    if found and not overwrite:
        raise UserError(f"{target} is not empty; give a new folder, or --overwrite to replace an earlier export")
    if found and "README.md" not in found:
        raise UserError(f"{target} is no earlier export (it has no README.md), so --overwrite does not replace it; give a new folder")
    if others := sorted(found - CONTENT):
        raise UserError(f"{target} holds more than an earlier export ({', '.join(others[:3])}), so it is not replaced; give a new folder")


def _put_in_place(folder: Path, target: Path, *, overwrite: bool) -> None:
    check_target(target, overwrite=overwrite)  # again: an export takes a while
    folder.chmod(0o777 & ~_umask())
    sync_folder(folder)
    if target.exists() and any(target.iterdir()):
        earlier = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_SUFFIX, dir=target.parent))
        target.rename(earlier)
        folder.rename(target)
        shutil.rmtree(earlier)
    else:
        folder.rename(target)
    sync_folder(target.parent)


def _umask() -> int:
    # Asked for by setting it; `mkdtemp` makes folders that only their owner may read.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _delete_leftovers(target: Path) -> None:
    for path in target.parent.iterdir():
        if not (path.name.startswith(f".{target.name}.") and path.name.endswith(_SUFFIX)):
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)
