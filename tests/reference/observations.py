"""Which observations every encoder sees, and how they are standardised: spec/encoders.md, sections 5 to 7."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
Config = Mapping[str, Any]

MAX_V2 = 256


@dataclass(frozen=True)
class Statistics:
    """Means and standard deviations: B04 B02 B03 B08 B8A B05 B06 B07 B11 B12, and VV VH of both orbits."""

    s2_mean: tuple[float, ...]
    s2_std: tuple[float, ...]
    asc: tuple[tuple[float, float], tuple[float, float]]
    desc: tuple[tuple[float, float], tuple[float, float]]


V1_0_S1 = ((5484.0407, 3003.7812), (1871.2334, 1726.0670))
V1_0 = Statistics(
    (1711.0938, 1308.8511, 1546.4543, 3010.1293, 3106.5083, 2068.3044, 2685.0845, 2931.5889, 2514.6928, 1899.4922),
    (1926.1026, 1862.9751, 1803.1792, 1741.7837, 1677.4543, 1888.7862, 1736.3090, 1715.8104, 1514.5199, 1398.4779),
    V1_0_S1,
    V1_0_S1,
)
V1_1 = {
    "mpc": Statistics(
        (2683.4553, 2223.3630, 2432.0950, 3633.1970, 3602.1755, 3006.4324, 3400.2710, 3515.6392, 2456.9163, 1983.8783),
        (2739.5217, 2846.2993, 2690.8250, 2290.0439, 2088.8970, 2673.1106, 2381.4521, 2229.5225, 1601.0942, 1495.3545),
        ((5588.3291, 3025.6270), (1713.4646, 1693.0471)),
        ((5552.9683, 2955.0520), (1685.5857, 1677.6414)),
    ),
    "aws": Statistics(
        (2793.6589, 2356.7776, 2551.0496, 3741.9229, 3713.7844, 3120.1997, 3516.3342, 3637.0342, 2501.0283, 2038.1504),
        (2810.0093, 2933.8835, 2755.6360, 2344.5027, 2145.7986, 2743.9019, 2438.8601, 2286.5977, 1680.7367, 1585.5529),
        ((5697.0859, 2838.6687), (1671.3737, 1789.4116)),
        ((5759.1367, 2873.2854), (1583.2858, 1747.8390)),
    ),
}
V2_S2 = (
    (1633.0042, 1341.1090, 1539.5536, 3054.8269, 3117.4658, 2004.1648, 2694.7275, 2945.1504, 2266.6079, 1657.3094),
    (1999.4603, 2014.7549, 1929.2201, 1754.2493, 1649.9807, 1936.8988, 1748.6041, 1708.6991, 1207.5250, 1108.6046),
)
V2_STUDENT = Statistics(
    *V2_S2, ((5909.3921, 3405.0322), (1507.1750, 1531.2615)), ((5816.1382, 3277.7576), (1554.6475, 1546.4733))
)
V2_MERGED = ((5862.7652, 3341.3949), (1531.8051, 1540.2014))
V2_TEACHER = Statistics(*V2_S2, V2_MERGED, V2_MERGED)


def statistics(family: str, source: str | None = None) -> Statistics:
    """`source` (mpc or aws) decides for v1.1 alone."""
    if family == "v1_1":
        return V1_1[str(source)]
    return {"v1_0_early": V1_0, "v1_0_qat": V1_0, "v2_student": V2_STUDENT, "v2_teacher": V2_TEACHER}[family]


def middles(n: int, chunks: int) -> list[int]:
    """0 ... n-1 in near-equal runs, longer ones first; the element at half of each run's length."""
    chosen, start = [], 0
    for i in range(chunks):
        length = n // chunks + (i < n % chunks)
        chosen.append(start + length // 2)
        start += length
    return chosen


def choose_v2(n: int) -> list[int]:
    """Which of n > 0 observations make up a sequence of v2."""
    if n > MAX_V2:
        return [int(np.floor(i * ((n - 1) / 255))) for i in range(255)] + [n - 1]
    fillers = -n % 8
    cyclic = [i % n for i in range(fillers)]
    return [*range(n), *(cyclic if fillers > n else middles(n, fillers))]


def bin_v1_1(n: int, checkpoints: Iterable[int]) -> int:
    """Length of the sequence of n observations."""
    bins = sorted({b for b in checkpoints if b > 0})
    return next((b for b in bins if b >= n), bins[-1])


def choose_v1_1(n: int, length: int) -> list[int]:
    """Which of n > 0 observations make up a sequence of this length, in the order that the GRU sees."""
    if n > length:
        return middles(n, length)
    fillers = length - n
    # The step is rounded first, as np.linspace does: k * (n - 1) / (fillers + 1) falls differently at some halves.
    step = (n - 1) / (fillers + 1)
    return [*range(n), *(min(round(k * step), n - 1) for k in range(1, fillers + 1))]


def draw_v1_0(valid: np.ndarray, size: int, rng: np.random.RandomState) -> np.ndarray:
    """Sorted random frames among those with True, or among all where there is none."""
    candidates = np.flatnonzero(valid) if valid.any() else np.arange(len(valid))
    return np.sort(rng.choice(candidates, size, replace=len(candidates) < size))


def tokens(
    family: str, config: Config, arrays: Arrays, row: int, column: int, source: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The two sequences of a pixel for v1.1 and v2, (T2, 11) and (T1, 3), day of year last."""
    with_ascending = not (family == "v1_1" and config.get("disable_s1_ascending"))
    s2, s2_valid = _s2(arrays, row, column, statistics(family, source))
    s1, s1_valid = _s1(arrays, row, column, statistics(family, source), with_ascending=with_ascending)
    # v1.1 takes the length from the sum of the mask, and the frames from where it is not zero.
    counts = (int(arrays["masks"][:, row, column].sum(dtype=int)), int(s1_valid.sum()))
    sequences = []
    for every, valid, count in ((s2, s2_valid, counts[0]), (s1, s1_valid, counts[1])):
        seen = every[valid]
        if family == "v1_1":
            length = bin_v1_1(count, config["num_obs_checkpoints"])
            chosen = choose_v1_1(len(seen), length) if len(seen) else []
        else:
            length = 1
            chosen = choose_v2(len(seen)) if len(seen) else []
        sequences.append(seen[chosen] if chosen else np.zeros((length, every.shape[1])))
    return sequences[0], sequences[1]


def draws(
    family: str, config: Config, arrays: Arrays, seed: int
) -> Iterator[tuple[list[tuple[int, int]], list[tuple[np.ndarray, np.ndarray]]]]:
    """Batches of v1.0: pixels, and per repeat their sequences (N, size2, 11) and (N, size1, 3).

    The generator is drawn from in the official order.
    """
    rng = np.random.RandomState(seed)
    shape = arrays["masks"].shape[1:]
    pixels = [(int(i), int(j)) for i, j in np.ndindex(*shape) if _processed(family, config, arrays, i, j)]
    size = int(config["batch_size"])
    for start in range(0, len(pixels), size):
        batch = pixels[start : start + size]
        repeats = []
        for _ in range(int(config["repeat_times"])):
            s2 = [_drawn(*_s2(arrays, i, j, V1_0), config["sample_size_s2"], rng) for i, j in batch]
            dummies = family == "v1_0_qat"
            s1 = [_drawn(*_s1(arrays, i, j, V1_0, dummies=dummies), config["sample_size_s1"], rng) for i, j in batch]
            repeats.append((np.stack(s2), np.stack(s1)))
        yield batch, repeats


def _drawn(frames: np.ndarray, valid: np.ndarray, size: int, rng: np.random.RandomState) -> np.ndarray:
    return frames[draw_v1_0(valid, size, rng)]


def _processed(family: str, config: Config, arrays: Arrays, row: int, column: int) -> bool:
    least = int(config["min_valid_timesteps"])
    seen = arrays["bands"][:, row, column].any() and arrays["masks"][:, row, column].sum(dtype=int) >= least
    if family == "v1_0_qat" and not len(arrays["sar_ascending"]) and not len(arrays["sar_descending"]):
        return bool(seen)
    return bool(seen and _s1(arrays, row, column, V1_0)[1].sum() >= least)


def _s2(arrays: Arrays, row: int, column: int, stats: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """All Sentinel-2 frames of a pixel, standardised (T, 11), and which are valid (T,)."""
    values = (arrays["bands"][:, row, column].astype(float) - stats.s2_mean) / stats.s2_std
    return np.column_stack([values, arrays["doys"].astype(float)]), arrays["masks"][:, row, column] != 0


def _s1(
    arrays: Arrays, row: int, column: int, stats: Statistics, *, with_ascending: bool = True, dummies: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """All Sentinel-1 frames of a pixel, ascending ones first, standardised (T, 3), and which are valid (T,)."""
    frames, valid = [np.zeros((0, 3))], [np.zeros(0, bool)]
    for orbit, (mean, std) in (("sar_ascending", stats.asc), ("sar_descending", stats.desc)):
        if orbit == "sar_ascending" and not with_ascending:
            continue
        values, days = arrays[orbit][:, row, column].astype(float), arrays[f"{orbit}_doy"].astype(float)
        if dummies and not len(values):
            values, days = np.zeros((1, 2)), np.array([180.0])
        frames.append(np.column_stack([(values - mean) / std, days]))
        valid.append((values != 0).any(axis=1))
    return np.concatenate(frames), np.concatenate(valid)
