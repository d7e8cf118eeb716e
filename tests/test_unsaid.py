"""What is written past Python is not seen meanwhile, and all is as before afterwards."""

import ctypes
import os
import subprocess
import sys
import threading

import pytest

from convlite.unsaid import ERRORS, OUT, unsaid

libc = ctypes.CDLL(None)


@pytest.mark.parametrize("stream", [OUT, ERRORS])
def test_only_what_is_written_meanwhile_to_that_stream_is_not_seen(stream, capfd):
    os.write(stream, b"before ")
    with unsaid(stream):
        os.write(stream, b"meanwhile")
        with unsaid(stream):
            os.write(stream, b"within")
        os.write(stream, b"meanwhile")
        os.write(OUT + ERRORS - stream, b"other")
    os.write(stream, b"after")
    seen = capfd.readouterr()
    assert {OUT: seen.out, ERRORS: seen.err} == {stream: "before after", OUT + ERRORS - stream: "other"}


def test_what_c_holds_back_keeps_its_place(capfd):
    libc.printf(b"before ")
    with unsaid(OUT):
        libc.printf(b"meanwhile")
    libc.printf(b"after")
    libc.fflush(None)
    assert capfd.readouterr().out == "before after"


def test_a_failure_within_and_many_threads_leave_the_stream_as_it_was(capfd):
    with pytest.raises(KeyError), unsaid(OUT):
        raise KeyError

    def often():
        for _ in range(200):
            with unsaid(OUT):
                pass

    threads = [threading.Thread(target=often) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    os.write(OUT, b"after")
    assert capfd.readouterr().out == "after"


def test_a_closed_stream_stays_closed():
    code = """
import os
os.close(1)
from convlite.unsaid import OUT, unsaid
with unsaid(OUT):
    pass
try:
    os.fstat(1)
except OSError:
    os.write(2, b"closed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "closed")
