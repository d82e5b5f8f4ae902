"""A report with numbers of a closed form: what page, tables and records are made of in tests.

The macro-F1 of a set of features is `skill x (0.55 + 0.1 log10(100 x share))`, with an interval of 4 points to either
side, less 2 points for each adapter after the first; the constant's is 0.1.
"""

from __future__ import annotations

import math
from typing import Any

SHARES = (0.01, 0.05, 0.1, 0.3, 1.0)
SKILL = {"tessera 2023": 1.1, "gap-filled series": 0.95, "seasonal medians": 0.85, "random encoder": 0.6}
KINDS = {"tessera 2023": "embedding", "gap-filled series": "raw", "seasonal medians": "raw", "random encoder": "random"}
ADAPTERS = ("constant", "logistic", "knn", "forest", "mlp")
CLASSES = ("maize", "winter $wheat$ & rye", "grass_land <b>", "sugar beet", "other")
HALF = 0.04


def macro_f1(features: str, adapter: str, share: float) -> float:
    if adapter == "constant":
        return 0.1
    return SKILL[features] * (0.55 + 0.1 * math.log10(100 * share)) - 0.02 * (ADAPTERS.index(adapter) - 1)


def result(features: str, adapter: str, labels: float | None, shots: int | None, f1: float) -> dict[str, Any]:
    metrics = {"accuracy": f1 + 0.05, "balanced_accuracy": f1 + 0.01, "macro_f1": f1}
    share = labels if labels is not None else shots / 100  # type: ignore[operator]
    return {
        "features": features,
        "adapter": adapter,
        "labels": labels,
        "shots": shots,
        "unit": "parcel",
        "draws": 5 if labels == 1.0 else 10,
        "n_train": round(960 * share),
        "metrics": metrics,
        "low": {name: value - HALF for name, value in metrics.items()},
        "high": {name: value + HALF for name, value in metrics.items()},
        "chosen": {"C": 0.1} if adapter == "logistic" else {},
    }


def comparison(one: str, other: str, share: float) -> dict[str, Any]:
    gap = macro_f1(one, "logistic", share) - (0.1 if other == "constant" else macro_f1(other, "logistic", share))
    return {
        "features": one,
        "against": other,
        "adapter": "logistic",
        "labels": share,
        "shots": None,
        "metric": "macro_f1",
        "difference": gap,
        "low": gap - HALF,
        "high": gap + HALF,
        "better_draws": 10 if gap > HALF else 6,
        "draws": 10,
    }


def classification() -> dict[str, Any]:
    """1,200 parcels on a grid of 40 x 30, five folds of six columns, one in five wrong."""
    results = [
        result(features, adapter, share, None, macro_f1(features, adapter, share))
        for share in SHARES
        for adapter in ADAPTERS
        for features in SKILL
    ]
    results += [
        result(features, "logistic", None, shots, macro_f1(features, "logistic", shots / 100))
        for shots in (1, 5, 10)
        for features in SKILL
    ]
    names = list(SKILL)
    others = [("constant", name) for name in names] + [
        (other, one) for n, one in enumerate(names) for other in names[n + 1 :]
    ]
    counts = [[200 if row == column else 10 for column in range(5)] for row in range(5)]
    grid = [(column, row) for row in range(30) for column in range(40)]
    return {
        "schema": 1,
        "task": "classification",
        "unit": "parcel",
        "samples": 1200,
        "parcels": 1200,
        "classes": [{"name": name, "samples": 240, "parcels": 240} for name in CLASSES],
        "features": [{"name": name, "kind": KINDS[name], "dims": 128, "origin": f"out/{name}"} for name in SKILL],
        "split": {
            "kind": "blocked",
            "folds": 5,
            "blocks": 120,
            "size_m": 800.0,
            "test_share": 0.2,
            "warning": None,
            "random": [
                {"features": "tessera 2023", "metric": "macro_f1", "random": 0.9, "blocked": 0.825, "gap": 0.075}
            ],
        },
        "adapters": list(ADAPTERS),
        "headline": {"adapter": "logistic", "metric": "macro_f1"},
        "budgets": [{"labels": share, "shots": None, "possible": True, "why": ""} for share in SHARES]
        + [{"labels": None, "shots": 50, "possible": False, "why": "sugar beet has 31 parcels to learn from"}],
        "results": results,
        "comparisons": [comparison(one, other, share) for share in SHARES for other, one in others],
        "verdicts": [
            "1 % of the labels (logistic): tessera 2023 is better than gap-filled series in 10 of 10 draws, "
            "by +8.2 points [4.2, 12.2] of macro-f1.",
            "100 % of the labels (logistic): tessera 2023 is better than gap-filled series in 10 of 10 draws, "
            "by +11.2 points [7.2, 15.2] of macro-f1.",
        ],
        "confusion": {name: {"labels": list(CLASSES), "counts": counts} for name in names[:2]},
        "robustness": [
            {
                "features": "tessera 2023",
                "variant": f"{dates} dates",
                "cosine": 1 - 1 / dates,
                "metric": "macro_f1",
                "value": 0.8 - 1 / dates,
                "dates": dates,
                "reference": 0.82,
                "samples": 240,
                "lost": 60 // dates,
            }
            for dates in (5, 10, 20, 40, 63)
        ]
        + [
            {
                "features": "tessera 2023",
                "variant": "without radar",
                "cosine": 0.91,
                "metric": "macro_f1",
                "value": 0.7,
                "dates": None,
            }
        ],
        "left_out": ["12 parcels that lie outside the embeddings", "class vineyard: 3 parcels, too few for 5 folds"],
        "notes": [],
        "places": {
            "features": "tessera 2023",
            "lonlat": [[4.4 + 0.01 * column, 51.0 + 0.008 * row] for column, row in grid],
            "fold": [(column // 8) % 5 for column, _ in grid],
            "error": [float((3 * column + row) % 5 == 0) for column, row in grid],
        },
        "seed": 0,
        "software": "tessera 0.0",
        "inputs": {"embeddings": ["fields_2023"], "labels": "fields.gpkg", "column": "crop"},
    }


def regression() -> dict[str, Any]:
    """A given split, 400 points; the constant's RMSE is 0.869 and lies within the interval of all features."""
    features = ("raw bands", "embedding")
    results = []
    for share, spoilt in ((0.1, 0.4), (1.0, 0.0)):
        for adapter, rmse in (("constant", 0.869), ("ridge", 0.85), ("forest", 0.9)):
            for name in features:
                values = {"rmse": rmse + spoilt, "mae": rmse - 0.2, "r2": 1 - rmse, "bias": -0.01}
                results.append(
                    result(name, adapter, share, None, 0.0)
                    | {
                        "unit": "point",
                        "metrics": values,
                        "low": {key: value - 0.1 for key, value in values.items()},
                        "high": {key: value + 0.1 for key, value in values.items()},
                    }
                )
    spiral = [(math.cos(0.3 * n) * n / 400, math.sin(0.3 * n) * n / 400) for n in range(400)]
    return {
        **classification(),
        "task": "regression",
        "unit": "point",
        "samples": 400,
        "classes": [],
        "targets": {"min": 0.1, "max": 9.0, "mean": 3.2, "std": 0.87},
        "features": [
            {"name": name, "kind": "raw" if "raw" in name else "embedding", "dims": 64, "origin": ""}
            for name in features
        ],
        "split": {"kind": "given", "folds": 1, "blocks": 400, "size_m": None, "test_share": 0.25, "random": []},
        "adapters": ["constant", "ridge", "forest"],
        "headline": {"adapter": "ridge", "metric": "rmse"},
        "budgets": [{"labels": share, "shots": None, "possible": True, "why": ""} for share in (0.1, 1.0)],
        "results": results,
        "comparisons": [
            comparison("tessera 2023", "constant", 1.0)
            | {"features": "embedding", "metric": "rmse", "adapter": "ridge", "difference": 0.019}
            | {"low": -0.08, "high": 0.119}
        ],
        "verdicts": ["100 % of the labels (ridge): nothing was shown."],
        "confusion": {},
        "robustness": [],
        "places": {
            "features": "embedding",
            "lonlat": [[179.9 + x, -17.5 + y] for x, y in spiral],
            "fold": [0 if n % 4 == 0 else -1 for n in range(400)],
            "error": [math.sin(n) if n % 4 == 0 else None for n in range(400)],
        },
    }


def segmentation() -> dict[str, Any]:
    """Two sets of features, each with a network of its own."""
    report = classification()
    own = {"tessera 2023": "decoder", "seasonal medians": "unet"}
    report["task"], report["unit"] = "segmentation", "pixel"
    report["headline"] = {"adapter": "decoder", "metric": "miou"}
    report["adapters"] = ["decoder", "unet"]
    report["features"] = [each for each in report["features"] if each["name"] in own]
    results = [each for each in report["results"] if each["features"] in own]
    kept = [each for each in results if each["adapter"] in ("constant", "logistic")]
    for each in kept:
        each["unit"] = "pixel"
        each["adapter"] = "constant" if each["adapter"] == "constant" else own[each["features"]]
        for key in ("metrics", "low", "high"):
            each[key] = {"miou": each[key]["macro_f1"]}
    pair = {"features": "tessera 2023", "against": "seasonal medians", "adapter": "decoder", "metric": "miou"}
    ends = {"difference": 0.1, "low": 0.02, "high": 0.18, "better_draws": 5, "draws": 5}
    report["results"], report["comparisons"] = kept, [{**pair, "labels": 1.0, "shots": None, **ends}]
    report["confusion"] = {name: each for name, each in report["confusion"].items() if name in own}
    report["robustness"], report["places"] = [], None
    return report
