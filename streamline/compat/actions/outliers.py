"""The action that removes rows whose numbers lie apart from the others."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from streamline.compat.actions.constants import NUMBER_TYPES, Action, column_type

if TYPE_CHECKING:
    Matrix = np.ndarray[Any, np.dtype[np.float64]]
    Mask = np.ndarray[Any, np.dtype[np.bool_]]

LEAST, MOST = 0.025, 0.15
"""The share of rows that are removed is between these."""
MOST_DIMENSIONS = 20
_CELLS = 4_000_000


def remove_outliers(df: pd.DataFrame, action: Action) -> pd.DataFrame:
    """Remove outliers, judged by the numeric columns among those named. Rows with missing numbers stay.

    `options['method']`: `lof` (local outlier factor), `itree` (isolation forest, which needs scikit-learn), `auto`:
    the first for up to five columns, else the second.
    """
    method = action["action_options"].get("method", "auto")
    if method not in ("auto", "lof", "itree"):
        raise ValueError(f"there is no method '{method}' of finding outliers; there are: auto, lof, itree")
    names = [name for name in df.columns if name in set(action["action_arguments"])]
    numbers = df[[name for name in names if column_type(action, name) in NUMBER_TYPES]].astype(float)
    present = numbers.notna().all(axis="columns").to_numpy()
    if not numbers.shape[1] or not present.any():
        return df
    outlying = _outliers(numbers.to_numpy()[present], method)
    stays = ~present
    stays[present] = ~outlying
    return df[stays]


def _outliers(rows: Matrix, method: str) -> Mask:
    rate = min(max(_estimated_rate(rows), LEAST), MOST)
    dimensions = rows.shape[1]
    if method == "auto":
        method = "lof" if dimensions <= 5 else "itree"
    if dimensions > MOST_DIMENSIONS:
        rows = _principal(rows)
    return _local_outliers(rows, rate) if method == "lof" else _isolated(rows, rate)


def _estimated_rate(rows: Matrix) -> float:
    """Return the share of rows outside 1.5 interquartile ranges in at least half of their columns."""
    low, high = np.quantile(rows, [0.25, 0.75], axis=0)
    reach = 1.5 * (high - low)
    outside = (rows < low - reach) | (rows > high + reach)
    return float((outside.mean(axis=1) >= 0.5).mean())


def _local_outliers(rows: Matrix, rate: float) -> Mask:
    """Breunig, Kriegel, Ng, Sander: LOF: identifying density-based local outliers (2000)."""
    count = len(rows)
    if count < 10:
        wanted = 2
    elif count < 500:
        wanted = count // 10 + 1
    else:
        wanted = 20 if rate <= 0.1 else 35
    neighbours = min(wanted, count - 1)
    if neighbours < 1:
        return np.zeros(count, dtype=bool)
    distances, nearest = _nearest(rows, neighbours)
    reachable = np.maximum(distances, distances[nearest, -1])
    # The small number keeps equal rows, which are at no distance, from a density without end.
    density = 1 / (reachable.mean(axis=1) + 1e-10)
    factor = -density[nearest].mean(axis=1) / density
    mask: Mask = factor < np.percentile(factor, 100 * rate)
    return mask


def _nearest(rows: Matrix, neighbours: int) -> tuple[Matrix, Any]:
    """Return the distances to each row's nearest neighbours, nearest first, and their indices."""
    count = len(rows)
    squares = (rows**2).sum(axis=1)
    distances, nearest = np.empty((count, neighbours)), np.empty((count, neighbours), dtype=int)
    step = max(1, _CELLS // count)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        between = squares[part, None] - 2 * rows[part] @ rows.T + squares
        between[np.arange(part.stop - start), np.arange(start, part.stop)] = np.inf
        some = np.argpartition(between, neighbours - 1, axis=1)[:, :neighbours]
        order = np.argsort(np.take_along_axis(between, some, axis=1), axis=1, kind="stable")
        nearest[part] = np.take_along_axis(some, order, axis=1)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        # Once more and exactly: the quick way above loses digits where values are large.
        distances[part] = np.sqrt(((rows[part, None, :] - rows[nearest[part]]) ** 2).sum(axis=2))
    return distances, nearest


def _isolated(rows: Matrix, rate: float) -> Mask:
    try:
        # By name: it is no dependency, and mypy need not know it.
        forests = import_module("sklearn.ensemble")
    except ImportError:
        raise ImportError(
            "remove_outliers by 'itree' (and by 'auto' of more than five columns) needs scikit-learn: "
            "pip install scikit-learn, or say {'method': 'lof'}"
        ) from None
    forest = forests.IsolationForest(contamination=rate, n_estimators=100, random_state=42)
    mask: Mask = forest.fit(rows).predict(rows) == -1
    return mask


def _principal(rows: Matrix) -> Matrix:
    centred = rows - rows.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    scores: Matrix = centred @ axes[:MOST_DIMENSIONS].T
    return scores
