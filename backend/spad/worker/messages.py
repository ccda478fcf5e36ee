"""What the plugin and the worker say to each other; typed, and without torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from spad.prompts.part import Part
from spad.prompts.prompt import Prompt
from spad.volumes.volume import SourceGrid, Volume

INLINE_BYTES = 16_384
"""Arrays up to this size travel in the message itself, larger ones as a file."""


@dataclass(frozen=True, eq=False)
class Request:
    """Work for the worker.

    Attributes:
        doing: completes the sentence "The worker was ...".
        priority: a job of higher priority overtakes another, even one that is under way.
        needs_device: whether a model runs, so that trainings that leave room for it wait.
    """

    doing: ClassVar[str] = "working"
    priority: ClassVar[int] = 0
    needs_device: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Describe(Request):
    """Statistics of a scan's voxels, and of each label on it; answered by a report (dict).

    The report has `voxels, finite, min, max, mean, sd` in the scan's unit (null where no voxel is
    finite) and `labels {NAME: {id, voxels, volume_ml, mean, sd, slices, diameter_mm}}`.

    Attributes:
        volume: the scan.
        labels: labels on the scan's voxels, or None.
    """

    doing: ClassVar[str] = "measuring a scan"
    priority: ClassVar[int] = 1
    needs_device: ClassVar[bool] = False
    volume: Volume
    labels: Volume | None = None


@dataclass(frozen=True, eq=False)
class Tokenize(Request):
    """What the tokenizer keeps of a scan; answered by a `Tokenization`.

    Attributes:
        volume: the scan.
        model: a model's name or file, None for the default.
        device: "auto", "cpu" or "cuda".
        phase: which time of a 4D scan.
    """

    doing: ClassVar[str] = "tokenizing a scan"
    volume: Volume
    model: str | None = None
    device: str = "auto"
    phase: int = 0


@dataclass(frozen=True, eq=False)
class Decode(Request):
    """The tokens of a scan decoded otherwise; answered by a `Decoding`.

    Attributes:
        volume: the scan.
        probabilities: of its `Tokenization`.
        model: the model's name or file.
        temperature: 1 leaves the probabilities as they are, less makes them harder.
        top_k: how many codes each token keeps, None for all.
        device: "auto", "cpu" or "cuda".
        phase: which time of a 4D scan.
    """

    doing: ClassVar[str] = "decoding tokens"
    volume: Volume
    probabilities: np.ndarray
    model: str
    temperature: float = 1.0
    top_k: int | None = None
    device: str = "auto"
    phase: int = 0


@dataclass(frozen=True, eq=False)
class DecodeSlice(Decode):
    """The same for one slice, quickly; answered by its pixels in the scan's unit.

    Attributes:
        axis: through which the slices lie: 0 S-I, 1 A-P, 2 R-L.
        index: the slice.
        limits: those of the report of the `Tokenization`.
    """

    axis: int = 0
    index: int = 0
    limits: tuple[float, ...] = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class DecodeAlone(Request):
    """What each code of a tokenizer alone decodes to; answered by (K, depth, height, width[, 3]).

    Attributes:
        model: the model's name or file.
        da: degree of anisotropy of the scan in question.
        modality: of the scan, or None.
        rgb: whether the scan is in colours.
        device: "auto", "cpu" or "cuda".
    """

    doing: ClassVar[str] = "decoding codes"
    model: str
    da: int
    modality: str | None = None
    rgb: bool = False
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Mask(Request):
    """Hide tokens of a scan and fill them in; answered by a `Masking`.

    Attributes:
        volume: the scan.
        model: a model's name or file, None for the default.
        ratio: share of the tokens to hide, 0 to 1.
        seed: draws the hidden tokens.
        paint: labels whose painted voxels choose the hidden tokens, or None.
        device: "auto", "cpu" or "cuda".
        phase: which time of a 4D scan.
    """

    doing: ClassVar[str] = "masking a scan"
    volume: Volume
    model: str | None = None
    ratio: float = 0.55
    seed: int = 0
    paint: Volume | None = None
    device: str = "auto"
    phase: int = 0


@dataclass(frozen=True, eq=False)
class Segment(Request):
    """Find the organs of a scan; answered by a labels `Volume` with its report.

    Attributes:
        volume: the scan, or one scan for each channel of the model.
        model: a model's name or file, None for the default.
        modality: "CT" or "MR", None to take the scan's own.
        device: "auto", "cpu" or "cuda".
        phase: which time of a 4D scan.
        box: the part to label: (start, stop) along each spatial axis of `volume.array`, None for
            the whole scan.
        confidence: also give the probability of each voxel's label; the answer is then `Organs`.
    """

    doing: ClassVar[str] = "segmenting a scan"
    volume: Volume | tuple[Volume, ...]
    model: str | None = None
    modality: str | None = None
    device: str = "auto"
    phase: int = 0
    box: tuple[tuple[int, int], ...] | None = None
    confidence: bool = False


@dataclass(frozen=True, eq=False)
class ClickRequest(Request):
    """What all work for clicks says.

    Attributes:
        volume: the scan.
        model: a clicker's name or file, None for the default.
        modality: "CT" or "MR", None to take the scan's own.
        device: "auto", "cpu" or "cuda".
        phase: which time of a 4D scan.
    """

    volume: Volume
    model: str | None = None
    modality: str | None = None
    device: str = "auto"
    phase: int = 0


@dataclass(frozen=True, eq=False)
class Encode(ClickRequest):
    """Look ahead at a scan, so that clicks are quick; answered by a report (dict).

    The report has `windows, seconds, features_mb, organs, uncertainty`.

    Attributes:
        near: where a person looks, as shares of the sides of the canonical view, depth first.
    """

    doing: ClassVar[str] = "looking ahead at a scan"
    near: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True, eq=False)
class Rate(Encode):
    """The same as `Encode`, when nobody waits for it: whatever a person starts comes first."""

    doing: ClassVar[str] = "rating a case"
    priority: ClassVar[int] = -1


@dataclass(frozen=True, eq=False)
class Click(ClickRequest):
    """Find an object anew after a prompt; answered by a `Clicked`, perhaps by a coarser one before.

    Attributes:
        name: what is meant; None to take the organ where one clicked.
        prompts: all of the object's, in order; the last one is new.
        previous: the object so far, or None.
        by_prompts: whether that comes of its prompts alone.
        organs: whether the decoder is told the automatic organs.
        features: whether it uses what the segmenter knows of the scan: where that is not ready, a
            first answer comes without, and the final one once it is.
    """

    doing: ClassVar[str] = "answering a click"
    priority: ClassVar[int] = 2
    name: str | None = None
    prompts: tuple[Prompt, ...] = ()
    previous: Part | None = None
    by_prompts: bool = True
    organs: bool = True
    features: bool = True


@dataclass(frozen=True, eq=False)
class AutomaticOrgan(ClickRequest):
    """An organ of the automatic result, once `Encode` is done; answered by a `Part` or None.

    Attributes:
        name: the organ.
    """

    doing: ClassVar[str] = "fetching an organ"
    priority: ClassVar[int] = 2
    name: str = ""


@dataclass(frozen=True, eq=False)
class Doubts(ClickRequest):
    """Places that are likely wrong; answered by a list of voxels, the worst first.

    Attributes:
        part: an object, at whose edge the decoder looks; None for all of the automatic result.
        count: how many places at most.
        prompts: the object's.
        name: what is meant by it.
    """

    doing: ClassVar[str] = "looking for doubtful places"
    priority: ClassVar[int] = 2
    part: Part | None = None
    count: int = 20
    prompts: tuple[Prompt, ...] = ()
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Compare(Request):
    """How well labels agree with others on the same grid; answered by a report (dict).

    The report is that of `spad.evaluation.metrics.evaluate`.

    Attributes:
        prediction: labels, such as a model's.
        reference: labels to judge them by.
    """

    doing: ClassVar[str] = "comparing labels"
    priority: ClassVar[int] = 1
    needs_device: ClassVar[bool] = False
    prediction: Volume
    reference: Volume


@dataclass(frozen=True, eq=False)
class Warm(Request):
    """Import torch and load models ahead of the first click; answered by a report (dict).

    Attributes:
        models: names or files of models to load; none loads torch alone.
        device: "auto", "cpu" or "cuda".
    """

    doing: ClassVar[str] = "loading models"
    priority: ClassVar[int] = -1
    needs_device: ClassVar[bool] = False
    models: tuple[str, ...] = ()
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Tokenization:
    """Answer to `Tokenize`, as `spad.inference.tokens.Tokenization` but without torch.

    Attributes:
        reconstruction: the scan as the tokenizer gives it back.
        error: absolute difference to the scan, in its unit.
        codes: index of each token's likeliest code, on the token grid.
        entropy: of each token's probabilities in nats, on the token grid.
        usage: (codes,) mean probability of each code.
        probabilities: (z, y, x, codes) of each token, along the axes of `codes`.
        report: the figures of `spad tokenize --report`.
    """

    reconstruction: Volume
    error: Volume
    codes: Volume
    entropy: Volume
    usage: np.ndarray
    probabilities: np.ndarray
    report: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Decoding:
    """Answer to `Decode`, as `spad.inference.decoding.Decoding` but without torch.

    Attributes:
        reconstruction: the scan as these tokens give it back.
        error: absolute difference to the scan, in its unit.
        report: the figures.
    """

    reconstruction: Volume
    error: Volume
    report: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Masking:
    """Answer to `Mask`, as `spad.inference.tokens.Masking` but without torch.

    Attributes:
        reconstruction: the scan with the hidden tokens filled in.
        mask: 1 where a token was hidden, on the token grid.
        report: the figures of `spad mask --report`.
    """

    reconstruction: Volume
    mask: Volume
    report: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Organs:
    """Answer to `Segment` with its confidence, as `spad.inference.segment.Organs`.

    Attributes:
        labels: the organs on the scan's grid, with the report.
        confidence: the probability of each voxel's label, stored in percent (uint8, slope 0.01).
    """

    labels: Volume
    confidence: Volume | None


@dataclass(frozen=True, eq=False)
class Clicked:
    """Answer to `Click`.

    Attributes:
        part: the object in a part of the scan, beyond which it stays as it was.
        seconds: that it took in the worker.
        features: whether what is known of the scan was ready.
        device: where it ran.
    """

    part: Part
    seconds: float
    features: bool
    device: str


@dataclass(frozen=True)
class Start:
    """Client to worker: begin a job."""

    job: int
    request: Any


@dataclass(frozen=True)
class Cancel:
    """Client to worker: stop a job at its next progress report."""

    job: int


@dataclass(frozen=True)
class Forget:
    """Client to worker: these files are removed, close them."""

    files: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """Worker to client: how far a job is, 0 to 1."""

    job: int
    fraction: float
    text: str


@dataclass(frozen=True)
class Partial:
    """Worker to client: a first answer, packed, that the final one will replace."""

    job: int
    value: Any


@dataclass(frozen=True)
class Result:
    """Worker to client: a job's answer, packed, and the memory (MB) that the worker now holds.

    That is memory of the GPU where it has used one, else its share of the machine's.
    """

    job: int
    value: Any
    memory_mb: float = 0.0


@dataclass(frozen=True)
class Failed:
    """Worker to client: a job failed; `is_ours` where the program is at fault, not its input."""

    job: int
    message: str
    is_ours: bool


@dataclass(frozen=True)
class Stopped:
    """Worker to client: a job stopped because it was cancelled."""

    job: int


@dataclass(frozen=True)
class ArrayRef:
    """An array that lies in a file: C order, from the first byte."""

    file: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Packed:
    """A dataclass (a request, an answer, a `Volume`) whose arrays lie in files."""

    kind: type
    values: dict[str, Any] = field(default_factory=dict)


Sources = dict[str, SourceGrid]


_DATACLASSES = (
    *(Volume, Request, Tokenization, Decoding, Masking, Organs, Clicked),
    *(Part, Prompt),
)


def pack(value: Any, put: Callable[[np.ndarray], ArrayRef]) -> Any:
    """Turn a request or an answer into what a small message can hold.

    Headers stay behind: the client has them and puts them back by the source grid's uuid.

    Args:
        value: numbers, texts, arrays, volumes, our dataclasses, and lists and dicts of those.
        put: stores an array in a file.

    Returns:
        The same with large arrays replaced by references.

    Raises:
        TypeError: the value holds anything else (a tensor would import torch where it arrives).
    """
    if value is None or isinstance(value, bool | int | float | str | np.dtype):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of Python objects cannot be sent")
        return put(value) if value.nbytes > INLINE_BYTES else np.array(value, order="C", copy=True)
    if isinstance(value, SourceGrid):
        return dataclasses.replace(value, header=None)
    if isinstance(value, _DATACLASSES):
        values = {
            item.name: pack(getattr(value, item.name), put) for item in dataclasses.fields(value)
        }
        return Packed(type(value), values)
    if isinstance(value, dict):
        return {pack(key, put): pack(entry, put) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(pack(entry, put) for entry in value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent")


def unpack(value: Any, get: Callable[[ArrayRef], np.ndarray], sources: Sources) -> Any:
    """Undo `pack`.

    Args:
        value: what `pack` gave.
        get: gives the array of a reference.
        sources: known source grids by uuid, whose headers are put back.

    Returns:
        The value; an array equals the one that was packed.
    """
    if isinstance(value, ArrayRef):
        return get(value)
    if isinstance(value, SourceGrid):
        return _known(value, sources)
    if isinstance(value, Packed):
        values = {name: unpack(entry, get, sources) for name, entry in value.values.items()}
        return value.kind(**values)
    if isinstance(value, dict):
        return {key: unpack(entry, get, sources) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(unpack(entry, get, sources) for entry in value)
    return value


def files_of(value: Any) -> list[str]:
    """The files to which a packed value refers."""
    files: list[str] = []

    def note(reference: ArrayRef) -> np.ndarray:
        files.append(reference.file)
        return np.zeros((1,) * len(reference.shape), dtype=reference.dtype)

    unpack(value, note, {})
    return files


def sources_of(request: Request) -> Sources:
    """The source grids of a request's volumes, by uuid."""
    sources = {}
    for item in dataclasses.fields(request):
        value = getattr(request, item.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Volume):
                sources[one.source.uuid] = one.source
    return sources


def _known(source: SourceGrid, sources: Sources) -> SourceGrid:
    known = sources.get(source.uuid)
    if known is None:
        return source
    same = known.permutation == source.permutation and known.flips == source.flips
    return known if same else dataclasses.replace(source, header=known.header)
