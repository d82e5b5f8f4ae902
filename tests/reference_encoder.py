"""The v2 student once more: float64, plain numpy, one pixel at a time, from spec/encoders.md and from nothing else.

It reads tensors by their official names and shares no code with the package, so that both must be wrong in the same
way for a test to miss it.
"""

from __future__ import annotations

import numpy as np

S2_MEAN = [1633.0042, 1341.1090, 1539.5536, 3054.8269, 3117.4658, 2004.1648, 2694.7275, 2945.1504, 2266.6079, 1657.3094]
S2_STD = [1999.4603, 2014.7549, 1929.2201, 1754.2493, 1649.9807, 1936.8988, 1748.6041, 1708.6991, 1207.5250, 1108.6046]
ASC = ([5909.3921, 3405.0322], [1507.1750, 1531.2615])
DESC = ([5816.1382, 3277.7576], [1554.6475, 1546.4733])


def random_student(
    seed: int,
    *,
    latent: int = 8,
    layers: int = 2,
    heads: int = 4,
    feedforward: int = 48,
    repr_dim: int = 128,
    qk: bool = False,
) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """`args` and `model` of an official checkpoint with random weights, float32."""
    rng = np.random.default_rng(seed)
    d = 4 * latent
    model: dict[str, np.ndarray] = {}

    def linear(name: str, inputs: int, outputs: int, sep: str = ".") -> None:
        model[f"{name}{sep}weight"] = rng.normal(0, inputs**-0.5, (outputs, inputs))
        model[f"{name}{sep}bias"] = rng.normal(0, 0.1, outputs)

    def scale(name: str, size: int, bias: bool = True) -> None:
        model[f"{name}.weight"] = rng.normal(1, 0.1, size)
        if bias:
            model[f"{name}.bias"] = rng.normal(0, 0.1, size)

    for backbone, bands in (("s2_backbone", 10), ("s1_backbone", 2)):
        linear(f"{backbone}.embedding.0", bands, d)
        linear(f"{backbone}.embedding.2", d, d)
        for i in range(layers):
            if qk:
                layer = f"{backbone}.transformer_encoder.{i}"
                for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    linear(f"{layer}.{name}", d, d)
                scale(f"{layer}.q_norm", d // heads, bias=False)
                scale(f"{layer}.k_norm", d // heads, bias=False)
            else:
                layer = f"{backbone}.transformer_encoder.layers.{i}"
                linear(f"{layer}.self_attn.in_proj", d, 3 * d, sep="_")
                linear(f"{layer}.self_attn.out_proj", d, d)
            linear(f"{layer}.linear1", d, feedforward)
            linear(f"{layer}.linear2", feedforward, d)
            scale(f"{layer}.norm1", d)
            scale(f"{layer}.norm2", d)
        linear(f"{backbone}.attn_pool.query", d, 1)
    linear("dim_reducer.0", 2 * d, 4 * d)
    scale("dim_reducer.1", 4 * d)
    linear("dim_reducer.4", 4 * d, repr_dim)
    args = {
        "repr_dim": repr_dim,
        "latent_dim": latent,
        "num_layers": layers,
        "nhead": heads,
        "dim_feedforward": feedforward,
        "max_seq_len": 256,
        "matryoshka_dims": "16,32,64,128",
        "enable_qk_norm": qk,
        "lr": 3e-4,
    }
    return args, {name: value.astype(np.float32) for name, value in model.items()}


def choose(n: int) -> list[int]:
    """Section 7, v2: which of n valid observations make up the sequence."""
    if n > 256:
        return [int(np.floor(i * ((n - 1) / 255))) for i in range(255)] + [n - 1]
    fillers = -n % 8
    kept = list(range(n))
    if fillers > n:
        return kept + [i % n for i in range(fillers)]
    start = 0
    for i in range(fillers):
        length = n // fillers + (i < n % fillers)
        kept.append(start + length // 2)
        start += length
    return kept


def tokens(pixel: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A pixel's arrays (T, bands), masks and days -> the two sequences, (T2, 11) and (T1, 3), day of year last."""
    s2 = [
        [*((band - np.array(S2_MEAN)) / np.array(S2_STD)), doy]
        for band, mask, doy in zip(pixel["s2"].astype(float), pixel["s2_mask"], pixel["s2_doy"], strict=True)
        if mask != 0
    ]
    s1 = []
    for orbit, (mean, std) in (("asc", ASC), ("desc", DESC)):
        for value, doy in zip(pixel[orbit].astype(float), pixel[f"{orbit}_doy"], strict=True):
            if value[0] != 0 or value[1] != 0:
                s1.append([*((value - np.array(mean)) / np.array(std)), doy])
    sequences = []
    for observations, width in ((s2, 11), (s1, 3)):
        rows = [observations[i] for i in choose(len(observations))] if observations else [[0.0] * width]
        sequences.append(np.array(rows, float))
    return sequences[0], sequences[1]


def embed(args: dict[str, object], model: dict[str, np.ndarray], pixel: dict[str, np.ndarray]) -> np.ndarray:
    """One pixel's embedding, float64 (repr_dim,)."""
    weights = {name: value.astype(float) for name, value in model.items()}
    vectors = [
        _backbone(args, weights, name, sequence)
        for name, sequence in zip(("s2_backbone", "s1_backbone"), tokens(pixel), strict=True)
    ]
    hidden = weights["dim_reducer.0.weight"] @ np.concatenate(vectors) + weights["dim_reducer.0.bias"]
    hidden = _standardise(hidden) * weights["dim_reducer.1.weight"] + weights["dim_reducer.1.bias"]
    return _standardise(weights["dim_reducer.4.weight"] @ np.maximum(hidden, 0) + weights["dim_reducer.4.bias"])


def _standardise(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _backbone(args: dict[str, object], weights: dict[str, np.ndarray], name: str, sequence: np.ndarray) -> np.ndarray:
    def linear(x: np.ndarray, tensor: str) -> np.ndarray:
        return x @ weights[f"{tensor}.weight"].T + weights[f"{tensor}.bias"]

    def norm(x: np.ndarray, tensor: str) -> np.ndarray:
        return _standardise(x) * weights[f"{tensor}.weight"] + weights[f"{tensor}.bias"]

    def rms(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return x * gain / np.sqrt((x**2).mean(-1, keepdims=True) + 1.1920929e-07)

    qk, heads = bool(args["enable_qk_norm"]), int(str(args["nhead"]))
    x = linear(np.maximum(linear(sequence[:, :-1], f"{name}.embedding.0"), 0), f"{name}.embedding.2")
    d = x.shape[1]
    for k in range(d // 2):
        angle = sequence[:, -1] * 10000.0 ** (-2 * k / d)
        x[:, 2 * k] += np.sin(angle)
        x[:, 2 * k + 1] += np.cos(angle)
    for i in range(int(str(args["num_layers"]))):
        if qk:
            layer = f"{name}.transformer_encoder.{i}"
            q, k, v = (linear(x, f"{layer}.{letter}_proj") for letter in "qkv")
            out = f"{layer}.out_proj"
        else:
            layer = f"{name}.transformer_encoder.layers.{i}"
            stacked = x @ weights[f"{layer}.self_attn.in_proj_weight"].T + weights[f"{layer}.self_attn.in_proj_bias"]
            q, k, v = stacked[:, :d], stacked[:, d : 2 * d], stacked[:, 2 * d :]
            out = f"{layer}.self_attn.out_proj"
        seen = []
        for h in range(heads):
            part = slice(h * d // heads, (h + 1) * d // heads)
            qh, kh = q[:, part], k[:, part]
            if qk:
                qh, kh = rms(qh, weights[f"{layer}.q_norm.weight"]), rms(kh, weights[f"{layer}.k_norm.weight"])
            seen.append(_softmax(qh @ kh.T / np.sqrt(d / heads)) @ v[:, part])
        y = norm(x + linear(np.concatenate(seen, axis=1), out), f"{layer}.norm1")
        x = norm(y + linear(np.maximum(linear(y, f"{layer}.linear1"), 0), f"{layer}.linear2"), f"{layer}.norm2")
    return _softmax(linear(x, f"{name}.attn_pool.query")[:, 0]) @ x
