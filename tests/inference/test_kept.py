"""What is encoded of a tile is kept when it is interrupted, and goes on to the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tessera_cli.inference.encode
from tessera_cli.errors import TileError
from tessera_cli.inference import cpu
from tessera_cli.inference.encode import encode
from tessera_cli.inference.gpu import GpuEngine
from tessera_cli.inference.kept import EVERY, Keeping
from tessera_cli.models import Model, load_model
from tessera_cli.models.quantise import Quantiser
from tests.helpers.encoders import drawing_officially
from tests.helpers.tiles import made_up
from tests.inference.test_encode import SMALL_CONFIG, all_of, mixed, precisions, small

COUNT = 200
CHUNK = 30


class Memory:
    """A keeper in memory."""

    def __init__(self) -> None:
        self.kept: tuple[np.ndarray, np.ndarray | None] | None = None
        self.saves: list[int] = []

    def load(self, values: np.ndarray, scales: np.ndarray | None) -> int:
        if self.kept is None:
            return 0
        count = len(self.kept[0])
        values[:count] = self.kept[0]
        if scales is not None:
            scales[:count] = self.kept[1]
        return count

    def save(self, values: np.ndarray, scales: np.ndarray | None) -> None:
        self.saves.append(len(values))
        self.kept = values.copy(), None if scales is None else scales.copy()


class Signal(BaseException):
    """What a signal handler raises."""


def after(pixels: int, error: BaseException) -> Callable[[int], None]:
    """Progress that raises once so many pixels are finished."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        if done >= pixels:
            raise error

    return advance


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CHUNK", CHUNK)
    monkeypatch.setattr(tessera_cli.inference.encode, "_CHUNK", CHUNK)


def cases() -> list[object]:
    """Every family and precision; of one of them every kind of result."""
    families = [pytest.param(name, "fp32", 8, "v1", id=name) for name in (*SMALL_CONFIG, "null", "v1.0 legacy")]
    values = [("student", "fp32", dims, quantiser) for dims, quantiser in ((None, None), (8, None), (None, "v2"))]
    int8 = pytest.param("student", "int8", 8, "v2", marks=precisions()[-1].marks)
    return [*families, *values, ("student", "bf16", 8, "v2"), int8]


def made(name: str, precision: str) -> Model:
    if name == "null":
        return load_model("null")
    if name == "v1.0 legacy":
        return drawing_officially(small("v1.0 odd sizes"))
    return small(name, precision)


@pytest.mark.parametrize(("name", "precision", "dims", "quantiser"), cases())
def test_a_tile_that_is_interrupted_twice_has_the_same_bytes(
    name: str, precision: str, dims: int | None, quantiser: Quantiser | None
) -> None:
    model = made(name, precision)
    pixels = made_up(mixed(2, COUNT), seed=5, shape=(20, COUNT // 20))
    asked = np.random.default_rng(1).random(pixels.requested.shape) < 0.9
    whole = encode(pixels, model, asked, seed=3, dims=dims, quantiser=quantiser)
    count, keeper = len(whole.values), Memory()
    for stop, kept in ((70, 60), (140, 120)):
        with pytest.raises(Signal):
            encode(
                pixels,
                model,
                asked,
                seed=3,
                dims=dims,
                quantiser=quantiser,
                keeper=keeper,
                threads=2,
                progress=after(stop, Signal()),
            )
        assert keeper.saves[-1] in (kept, kept + CHUNK)  # a chunk is finished before its progress is told
    steps: list[int] = []
    rest = encode(pixels, model, asked, seed=3, dims=dims, quantiser=quantiser, keeper=keeper, progress=steps.append)
    assert rest.values.tobytes() == whole.values.tobytes()
    assert (rest.scales is None) == (whole.scales is None)
    if rest.scales is not None:
        assert whole.scales is not None
        assert rest.scales.tobytes() == whole.scales.tobytes()
    assert steps[0] == rest.kept == keeper.saves[-1]
    assert sum(steps) == count
    assert rest.tokens < whole.tokens or name == "null"
    assert len(keeper.saves) == 2, "a tile that is finished is not kept"


def test_tokens_are_those_of_this_call() -> None:
    """Twenty-four tokens a pixel: the first call encodes 60 of 200 pixels, the second the others."""
    pixels = made_up(np.tile([[16, 4, 4]], (COUNT, 1)), seed=5)
    model, keeper = small("student"), Memory()
    with pytest.raises(Signal):
        encode(pixels, model, all_of(pixels), keeper=keeper, progress=after(75, Signal()))
    assert keeper.saves == [60]
    assert encode(pixels, model, all_of(pixels), keeper=keeper).tokens == 140 * 24


def test_the_device_of_a_gpu_keeps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU in the guise of a GPU: a chunk is handed out while the next one is encoded."""
    monkeypatch.setattr("tessera_cli.inference.encode.get_engine", lambda encoder, threads: GpuEngine(encoder))
    monkeypatch.setattr("tessera_cli.inference.gpu.CHUNK", CHUNK)
    pixels = made_up(mixed(2, COUNT), seed=5)
    model, keeper = small("student"), Memory()
    whole = encode(pixels, model, all_of(pixels)).values
    with pytest.raises(Signal):
        encode(pixels, model, all_of(pixels), keeper=keeper, progress=after(100, Signal()))
    assert keeper.saves == [60]
    rest = encode(pixels, model, all_of(pixels), keeper=keeper)
    assert rest.kept == 60
    np.testing.assert_array_equal(rest.values, whole)


def test_nan_is_never_kept() -> None:
    pixels = made_up(mixed(2, COUNT), seed=5)
    model, keeper = small("student"), Memory()
    assert model.encoder is not None
    fuse, calls = model.encoder.fuse, 0

    def damaged(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return fuse(*arguments) * (float("nan") if calls == 3 else 1)  # type: ignore[arg-type]

    model.encoder.fuse = damaged  # type: ignore[assignment, method-assign]
    with pytest.raises(TileError, match="NaN"):
        encode(pixels, model, all_of(pixels), quantiser="v2", keeper=keeper)
    assert keeper.saves == [2 * CHUNK]


def test_nothing_is_kept_of_a_first_chunk_that_is_not_finished() -> None:
    pixels = made_up(mixed(2, COUNT), seed=5)
    keeper = Memory()
    with pytest.raises(Signal):
        encode(pixels, small("student"), all_of(pixels), keeper=keeper, progress=after(1, Signal()))
    assert keeper.saves == []


def test_a_whole_prefix_leaves_nothing_to_encode() -> None:
    pixels = made_up(mixed(2, COUNT), seed=5)
    model, keeper = small("student"), Memory()
    whole = encode(pixels, model, all_of(pixels))
    keeper.save(whole.values, None)
    again = encode(pixels, model, all_of(pixels), keeper=keeper)
    assert (again.kept, again.tokens) == (COUNT, 0)
    np.testing.assert_array_equal(again.values, whole.values)


class Clock:
    """A clock that shows what it is told; saving takes `slow` seconds."""

    def __init__(self, slow: float = 0) -> None:
        self.now, self.slow, self.saved = 0.0, slow, []  # type: ignore[var-annotated]

    def load(self, values: np.ndarray, scales: np.ndarray | None) -> int:
        return 0

    def save(self, values: np.ndarray, scales: np.ndarray | None) -> None:
        self.saved.append(self.now)
        self.now += self.slow


@pytest.mark.parametrize(
    ("slow", "every", "expected"),
    [
        (0, 10, [60, 120, 180, 240]),  # about once a minute
        (0, 45, [90, 180, 270]),  # at the end of a chunk
        (0, 200, [200]),
        (1.5, 10, [60, 211.5]),  # a second and a half of saving in 150 of encoding
    ],
)
def test_saving_is_paced(slow: float, every: float, expected: list[float]) -> None:
    """Chunks of one row for 300 seconds; the last one makes the tile whole."""
    clock = Clock(slow)
    rows = round(300 / every)
    with Keeping(clock, np.zeros((rows, 2), np.float32), None, clock=lambda: clock.now) as keeping:
        for row in range(rows):
            clock.now += every
            keeping.add(slice(row, row + 1), np.ones((1, 2), np.float32), None)
    assert clock.saved == expected
    assert EVERY == 60


def interrupted(keeper: Memory, values: np.ndarray, rows: int, error: BaseException) -> None:
    """Finish rows until there are so many of them, then raise the error."""
    with Keeping(keeper, values, None) as keeping:
        for row in range(keeping.done, rows):
            keeping.add(slice(row, row + 1), np.full((1, 2), row, np.float32), None)
        raise error


@pytest.mark.parametrize("error", [Signal(), KeyboardInterrupt(), SystemExit(), MemoryError(), TileError("x")])
def test_whatever_ends_it_saves_once_what_is_new(error: BaseException) -> None:
    keeper, values = Memory(), np.zeros((4, 2), np.float32)
    for rows in (0, 1, 3):
        for _ in range(2):
            with pytest.raises(type(error)):
                interrupted(keeper, values, rows, error)
    assert keeper.saves == [1, 3]
