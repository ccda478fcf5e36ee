"""The worker's own side, in this process: what becomes of the files of its answers."""

from __future__ import annotations

import numpy as np

from spad.errors import SpadError
from spad.worker import messages, server
from spad.worker.arrays import ArrayFolder, take_array


class Pipe:
    """A connection that keeps what is sent."""

    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)


def test_a_first_answer_outlives_a_job_that_fails(tmp_path, monkeypatch):
    """The client may read its files after the worker has failed."""
    first = np.arange(100_000)

    def perform(request, report, show):
        show(first)
        raise SpadError("The rest is missing.")

    monkeypatch.setattr(server, "perform", perform)
    pipe, folder = Pipe(), ArrayFolder([tmp_path], "out")
    worker = server.Worker(pipe, folder, 0)
    worker._do(messages.Start(1, messages.pack(messages.Warm(), folder.write)))
    _, partial, failed = pipe.sent
    assert failed.message == "The rest is missing."
    assert np.array_equal(messages.unpack(partial.value, take_array, {}), first)
