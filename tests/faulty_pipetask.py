# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""`pipetask` with a fault at one file.

Usage: ``FAULT=... FAULT_AT=... python faulty_pipetask.py ARGUMENTS...``.  The
fault is at the dataset whose path holds the text of FAULT_AT, and is one of

``half``
    The process is killed (SIGKILL) when half of the file is written.
``moved``
    It is killed when the whole file is in its place, and the repository does
    not know of it yet.
``full``
    The disk is full when half of the file is written.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Any
from unittest import mock

from lsst.ctrl.mpexec.cli.pipetask import main
from lsst.resources.file import FileResourcePath

# In the environment, which worker processes have in common.
FAULT, FAULT_AT = os.environ["FAULT"], os.environ["FAULT_AT"]

_transfer = FileResourcePath.transfer_from


def transfer_from(self: FileResourcePath, src: FileResourcePath, *args: Any, **kwargs: Any) -> None:
    """Move a file that was written to its place, unless the fault is here.

    Every dataset is written to a temporary file first, whatever its format.
    """
    if FAULT_AT not in self.ospath:
        _transfer(self, src, *args, **kwargs)
        return
    if FAULT == "moved":
        _transfer(self, src, *args, **kwargs)
    else:
        os.truncate(src.ospath, os.path.getsize(src.ospath) // 2)
    if FAULT == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), src.ospath)
    os.kill(os.getpid(), signal.SIGKILL)


# Worker processes are spawned, and run this file up to here as well.
mock.patch.object(FileResourcePath, "transfer_from", transfer_from).start()

if __name__ == "__main__":
    main()
