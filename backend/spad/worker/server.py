"""The worker process: the only place where the plugin's torch runs.

Started as `python -m spad.worker.server` by `spad.worker.client`; it ends with its client.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from spad import turns
from spad.errors import Cancelled, SpadError
from spad.processes import step_back
from spad.progress import Progress
from spad.prompts.part import Part
from spad.prompts.prompt import Voxel
from spad.volumes.volume import Volume
from spad.worker import messages
from spad.worker.arrays import ArrayFolder, discard_file, map_array
from spad.worker.describe import describe
from spad.worker.process import RESULT_PREFIX

REPORT_SECONDS = 0.05
"""Shortest time between two progress messages."""

_STEPS_BACK = 5

Answer = TypeVar(
    "Answer", messages.Tokenization, messages.Decoding, messages.Masking, messages.Organs
)


class Worker:
    """Does the jobs of one client, one at a time.

    The client sends a job while another is under way only if it is to overtake that: it is then
    done within the other's next progress report.

    Args:
        connection: to the client.
        folder: the client's folders, for answers.
        parent: the client's process id.
    """

    def __init__(self, connection: Connection[Any, Any], folder: ArrayFolder, parent: int) -> None:
        self._connection = connection
        self._folder = folder
        self._parent = parent
        self._jobs: queue.SimpleQueue[messages.Start] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._maps: dict[str, np.ndarray] = {}

    def run(self) -> None:
        """Work until the client is gone."""
        threading.Thread(target=self._listen, name="spad-worker-listen", daemon=True).start()
        while True:
            self._do(self._jobs.get())

    def _listen(self) -> None:
        """Take messages while the main thread works; the end of the client ends the process."""
        while True:
            try:
                while not self._connection.poll(1.0):
                    # a fork of a dead client may hold the other end open
                    if os.name == "posix" and os.getppid() != self._parent:
                        os._exit(0)
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)
            match message:
                case messages.Start():
                    self._jobs.put(message)
                case messages.Cancel():
                    self._cancelled.add(message.job)
                case messages.Forget():
                    for file in message.files:
                        self._maps.pop(file, None)

    def _overtake(self) -> None:
        """Do the jobs that came while another is under way."""
        while True:
            try:
                start = self._jobs.get_nowait()
            except queue.Empty:
                return
            self._do(start)

    def _do(self, start: messages.Start) -> None:
        self._send(messages.Progress(start.job, 0.0, "Started"))
        written: list[str] = []

        def put(array: np.ndarray) -> messages.ArrayRef:
            reference = self._folder.write(array, lambda: self._check(start.job))
            written.append(reference.file)
            return reference

        def show(first: Any) -> None:
            self._send(messages.Partial(start.job, messages.pack(first, put)))
            written.clear()  # the client takes them, however the job ends

        try:
            request = messages.unpack(start.request, self._map, {})
            with turns.taken() if request.needs_device else nullcontext():
                value = perform(request, self._reporter(start.job), show)
            answer: Any = messages.Result(start.job, messages.pack(value, put), held_memory())
        except Cancelled:
            answer = messages.Stopped(start.job)
        except SpadError as error:
            answer = messages.Failed(start.job, str(error), is_ours=False)
        except BaseException as error:  # a library's SystemExit must not end the worker either
            traceback.print_exc()
            line = " ".join(f"{type(error).__name__}: {error}".split())
            answer = messages.Failed(start.job, f"An error of ours: {line[:300]}.", is_ours=True)
        if not isinstance(answer, messages.Result):
            for file in written:
                discard_file(file)
        self._cancelled.discard(start.job)
        self._send(answer)

    def _check(self, job: int) -> None:
        if job in self._cancelled:
            raise Cancelled("Stopped.")

    def _map(self, reference: messages.ArrayRef) -> np.ndarray:
        if reference.file not in self._maps:
            self._maps[reference.file] = map_array(reference)
        return self._maps[reference.file]

    def _reporter(self, job: int) -> Progress:
        last = -REPORT_SECONDS

        def report(fraction: float, text: str) -> None:
            nonlocal last
            self._check(job)
            self._overtake()
            self._check(job)
            now = time.monotonic()
            if now - last >= REPORT_SECONDS:
                last = now
                self._send(messages.Progress(job, float(fraction), str(text)))

        return report

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:
            os._exit(0)


def held_memory() -> float:
    """MB that this process holds: of the GPU if it uses one, else of the machine's memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.memory_reserved()) / 1e6
    return psutil.Process().memory_info().rss / 1e6


def perform(
    request: messages.Request,
    progress: Progress,
    show: Callable[[Any], None] = lambda first: None,
) -> Any:
    """Do what a request asks.

    Args:
        request: one of `spad.worker.messages`.
        progress: called now and then; may raise `Cancelled`.
        show: given a first answer where a better one follows.

    Returns:
        The answer that the request's docstring names.

    Raises:
        SpadError: the request cannot be met; its text says why.
    """
    match request:
        case messages.Describe():
            return describe(request.volume, request.labels, progress)
        case messages.Tokenize():
            return _tokenize(request, progress)
        case messages.DecodeSlice():
            return _decode_slice(request, progress)
        case messages.Decode():
            return _decode(request, progress)
        case messages.DecodeAlone():
            return _decode_alone(request, progress)
        case messages.Mask():
            return _mask(request, progress)
        case messages.Segment():
            return _segment(request, progress)
        case messages.Encode():
            return _open(request).encode(request.near, request.device, progress)
        case messages.Click():
            return _click(request, progress, show)
        case messages.AutomaticOrgan():
            return _open(request).organ(request.name)
        case messages.Doubts():
            return _doubts(request, progress)
        case messages.Compare():
            return _compare(request, progress)
        case messages.Warm():
            return _warm(request, progress)
    raise TypeError(f"no handler for a request of type {type(request).__name__}")


def _tokenize(request: messages.Tokenize, progress: Progress) -> messages.Tokenization:
    from spad.inference.tokens import tokenize

    answer = tokenize(
        request.volume,
        model=request.model,
        device=request.device,
        progress=progress,
        phase=request.phase,
    )
    return _without_torch(answer, messages.Tokenization)


def _decode(request: messages.Decode, progress: Progress) -> messages.Decoding:
    from spad.inference.decoding import decode

    answer = decode(
        request.volume,
        request.probabilities,
        request.model,
        temperature=request.temperature,
        top_k=request.top_k,
        device=request.device,
        progress=progress,
        phase=request.phase,
    )
    return _without_torch(answer, messages.Decoding)


def _decode_slice(request: messages.DecodeSlice, progress: Progress) -> np.ndarray:
    from spad.inference.decoding import decode_slice

    return decode_slice(
        request.volume,
        request.probabilities,
        request.model,
        request.axis,
        request.index,
        request.limits,
        temperature=request.temperature,
        top_k=request.top_k,
        device=request.device,
        progress=progress,
        phase=request.phase,
    )


def _decode_alone(request: messages.DecodeAlone, progress: Progress) -> np.ndarray:
    from spad.inference.decoding import alone

    return alone(
        request.model,
        request.da,
        request.modality,
        rgb=request.rgb,
        device=request.device,
        progress=progress,
    )


def _mask(request: messages.Mask, progress: Progress) -> messages.Masking:
    from spad.inference.tokens import mask

    answer = mask(
        request.volume,
        model=request.model,
        ratio=request.ratio,
        seed=request.seed,
        paint=request.paint,
        device=request.device,
        progress=progress,
        phase=request.phase,
    )
    return _without_torch(answer, messages.Masking)


def _segment(request: messages.Segment, progress: Progress) -> Volume | messages.Organs:
    from spad.inference.segment import organs

    answer = organs(
        request.volume,
        model=request.model,
        modality=request.modality,
        device=request.device,
        progress=progress,
        phase=request.phase,
        box=request.box,
        confidence=request.confidence,
    )
    return _without_torch(answer, messages.Organs) if request.confidence else answer.labels


def _open(request: messages.ClickRequest) -> Any:
    from spad.inference.click_scans import open_scan

    return open_scan(
        *(request.volume, request.model, request.modality, request.device, request.phase)
    )


def _click(
    request: messages.Click, progress: Progress, show: Callable[[Any], None]
) -> messages.Clicked:
    began = time.perf_counter()
    progress(0.0, "Click")
    scan = _open(request)

    def answer(part: Part, known: bool) -> messages.Clicked:
        seconds = time.perf_counter() - began
        return messages.Clicked(part, seconds, known, scan.model.place.type)

    def look(known: bool) -> messages.Clicked:
        part = scan.click(
            *(request.prompts, request.previous, request.name),
            features=known,
            organs=request.organs,
            by_prompts=request.by_prompts,
            show=lambda part: show(answer(part, known)),
            check=lambda: progress(0.5, "Click"),
        )
        return answer(part, known)

    if request.features and scan.features is None and scan.may_have_features:
        show(look(False))
        scan.encode(scan.place_of(request.prompts), request.device, progress)
    return look(request.features and scan.features is not None)


def _doubts(request: messages.Doubts, progress: Progress) -> list[Voxel]:
    words = "Looking for doubts"
    progress(0.0, words)
    found: list[Voxel] = _open(request).doubts(
        *(request.part, request.count, request.prompts, request.name),
        lambda: progress(0.5, words),
    )
    return found


def _compare(request: messages.Compare, progress: Progress) -> dict[str, object]:
    from spad.evaluation.metrics import evaluate

    progress(0.0, "Comparing")
    return evaluate(request.prediction, request.reference)


def _warm(request: messages.Warm, progress: Progress) -> dict[str, Any]:
    began = time.perf_counter()
    progress(0.0, "Loading torch")
    import spad.inference.segment
    import spad.inference.tokens  # noqa: F401
    from spad.device import choose
    from spad.inference.models import loaded

    for number, name in enumerate(request.models):
        progress((number + 1) / (len(request.models) + 1), f"Loading {name}")
        loaded(name, request.device)
    return {
        "device": str(choose(request.device)),
        "models": list(request.models),
        "seconds": time.perf_counter() - began,
    }


def _without_torch(answer: Any, kind: Callable[..., Answer]) -> Answer:
    names = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(answer, name) for name in names})


def _end_with_client() -> None:
    """Wait for the end of standard input, which the client holds open."""
    while os.read(0, 1024):
        pass
    os._exit(0)


def _accept(key: bytes, address: Path) -> Connection[Any, Any]:
    """Let the client in that knows the key; it finds the socket through the file `address`."""
    with _listener(key, address.parent) as listener:
        part = address.with_suffix(".part")
        part.write_text(json.dumps(listener.address), encoding="utf-8")
        part.replace(address)
        while True:
            try:
                return listener.accept()
            except (AuthenticationError, EOFError, ConnectionError):
                continue  # somebody else knocked


def _listener(key: bytes, folder: Path) -> Listener:
    if sys.platform == "win32":
        return Listener(family="AF_PIPE", authkey=key)
    try:
        return Listener(str(folder / "socket"), "AF_UNIX", authkey=key)
    except OSError:  # the folder's name is too long for a socket
        return Listener(("localhost", 0), "AF_INET", authkey=key)


def main() -> None:
    """Serve the client that started this process."""
    faulthandler.enable()
    step_back(_STEPS_BACK)
    parent = os.getppid()
    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_client, name="spad-worker-end", daemon=True).start()
    connection = _accept(bytes.fromhex(settings["key"]), Path(settings["address"]))
    folders = [Path(path) for path in settings["folders"]]
    Worker(connection, ArrayFolder(folders, RESULT_PREFIX), parent).run()


if __name__ == "__main__":
    main()
