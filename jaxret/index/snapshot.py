"""The codes of an index as they are searched: a saved gallery, mapped, and NumPy over it.

A snapshot is derived from the catalogue and named by its generation. Reading one and searching it
needs no JAX, so that a search for an indexed image starts at once.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, Num, Shaped, UInt32

from jaxret.gallery import store
from jaxret.index.catalogue import Catalogue
from jaxret.index.places import GALLERY as FOLDER
from jaxret.index.places import PhotoIndexError
from jaxret.search.rows import distances as hamming
from jaxret.search.rows import least_rows

if TYPE_CHECKING:
    from jaxret.search.columns import Columns

TILE = 2**13  # vectors whose distances are computed at once
MANY = 10_000  # rows left out
DTYPES = {"codes": np.dtype("<u4"), "vectors": np.dtype("<f4")}
METRICS = {"codes": "hamming", "vectors": "squared euclidean"}
UNITS = {"codes": "bits", "vectors": "dims"}

Values = UInt32[np.ndarray, "n w"] | Float32[np.ndarray, "n d"]


class Snapshot(NamedTuple):
    """The searched rows of an index, in the order of ids; width is in bits or numbers.

    compiled: the values they were made from, and codes for a program, where there are some.
    """

    ids: Int64[np.ndarray, " n"]
    values: Values
    kind: str  # "codes" or "vectors"
    width: int
    generation: int
    compiled: "tuple[Values, Columns] | None" = None

    @property
    def metric(self) -> str:
        """How rows are compared."""
        return METRICS[self.kind]

    def rows_of(self, ids: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        """Return the row of each id; raise PhotoIndexError for an id that is not there."""
        rows = np.searchsorted(self.ids, ids)
        wrong = rows >= len(self.ids)
        wrong[~wrong] = self.ids[rows[~wrong]] != ids[~wrong]
        if wrong.any():
            raise PhotoIndexError(f"no image has the id {ids[wrong][0]}")
        return rows


def read(catalogue: Catalogue) -> Snapshot:
    """Return the snapshot of the catalogue's generation, mapped.

    Where it is not on the disk, or is not whole, the codes come from the catalogue.

    Raises PhotoIndexError where the index holds no code yet.
    """
    facts = catalogue.facts()
    generation, model = facts["generation"], facts.get("model")
    if not generation or model is None:
        staged = catalogue.query("SELECT count(*) FROM staged")[0][0]
        if not staged:
            raise PhotoIndexError(f"{catalogue.index}: holds no image yet; jaxret index PHOTOS")
        raise PhotoIndexError(
            f"{catalogue.index}: the first indexing has not finished ({staged} images are coded); "
            "run it again: jaxret index PHOTOS"
        )
    kind, width = model["kind"], model["width"]
    try:
        header, columns = store.read(folder_of(catalogue, generation), mapped=True, verify=False)
        if (header["kind"], header["width"]) == (kind, width):
            return Snapshot(columns["ids"], columns[kind], kind, width, generation)
    except (store.GalleryError, KeyError, OSError):
        pass  # removed, or of a writer that was killed: what is derived can be derived again
    return Snapshot(*gather(catalogue, kind, width), kind, width, generation)


def gather(catalogue: Catalogue, kind: str, width: int) -> tuple[Int64[np.ndarray, " n"], Values]:
    """Return ids and codes of the catalogue's images, in the order of ids."""
    count = catalogue.query("SELECT count(*) FROM images")[0][0]
    columns = -(-width // 32) if kind == "codes" else width
    ids, values = np.empty(count, np.int64), np.empty((count, columns), DTYPES[kind])
    for row, (number, code) in enumerate(catalogue.codes()):
        ids[row], values[row] = number, np.frombuffer(code, DTYPES[kind])
    return ids, values


def publish(catalogue: Catalogue, kind: str, width: int, generation: int) -> None:
    """Write the snapshot of a generation, in one step, from the catalogue as it is now.

    Called inside the transaction that makes this generation the current one.
    """
    from jaxret.gallery import Gallery

    ids, values = gather(catalogue, kind, width)
    if kind == "codes":
        gallery = Gallery.from_codes(values, width, ids)
    else:
        gallery = Gallery.from_vectors(values, ids)
    target = folder_of(catalogue, generation)
    pending = target.with_name(f".{generation}.{os.getpid()}.tmp")
    try:
        gallery.save(pending)
        shutil.rmtree(target, ignore_errors=True)  # of a writer that was killed before its commit
        os.rename(pending, target)
    finally:
        shutil.rmtree(pending, ignore_errors=True)


def remove_old(catalogue: Catalogue, generation: int) -> None:
    """Remove snapshots but the current one and the one before, which a reader may be opening."""
    for folder in (catalogue.index / FOLDER).iterdir():
        if folder.name not in (str(generation), str(generation - 1)):
            shutil.rmtree(folder, ignore_errors=True)


def folder_of(catalogue: Catalogue, generation: int) -> Path:
    """Return where the snapshot of a generation lies."""
    return catalogue.index / FOLDER / str(generation)


def compiled(snapshot: Snapshot) -> Snapshot:
    """Return the same rows as a compiled program searches them, which has answered once.

    Codes are copied for it. It takes part of a second, and is for a process that searches often.
    """
    if snapshot.kind != "codes" or not len(snapshot.values):
        return snapshot
    from jaxret.search.columns import Columns

    made = Columns.make(snapshot.values)
    made.distances(snapshot.values[0])
    return snapshot._replace(compiled=(snapshot.values, made))


def scores(
    snapshot: Snapshot,
    positive: Shaped[np.ndarray, "p w"],
    negative: Shaped[np.ndarray, "m w"] | None = None,
) -> Num[np.ndarray, " n"]:
    """Return of each row the sum of distances to positive queries less that to negative ones.

    Distances are bits, of one query in the least unsigned type and else i64, or squared Euclidean,
    f32 for one query and else f64.
    """
    if len(positive) == 1 and (negative is None or not len(negative)):
        return distances(snapshot, positive[0])
    total = np.zeros(len(snapshot.ids), np.int64 if snapshot.kind == "codes" else np.float64)
    for query in positive:
        total += distances(snapshot, query)
    for query in () if negative is None else negative:
        total -= distances(snapshot, query)
    return total


def distances(snapshot: Snapshot, query: Shaped[np.ndarray, " w"]) -> Num[np.ndarray, " n"]:
    """Return the distance of each row to one query."""
    values = snapshot.values
    if snapshot.kind == "codes":
        made = snapshot.compiled
        if made is not None and made[0] is values:  # and not of some of the rows
            return made[1].distances(query)
        return hamming(values, query)
    found = np.empty(len(values), np.float32)
    for start in range(0, len(values), TILE):
        difference = values[start : start + TILE].astype(np.float64) - query[None]
        found[start : start + TILE] = np.einsum("nd,nd->n", difference, difference)
    return found


def nearest(
    values: Num[np.ndarray, " n"],
    k: int,
    keep: Bool[np.ndarray, " n"] | None = None,
    without: Int64[np.ndarray, " m"] | None = None,
) -> Int64[np.ndarray, " k"]:
    """Return the k rows of the least values, ascending; of equal ones the first row first.

    Args:
        values: one for each row.
        k: how many rows at most.
        keep: which rows may be found; None for all.
        without: a few rows that may not.

    Returns:
        k rows, or all that may be found.
    """
    without = np.empty(0, np.int64) if without is None else np.unique(without)
    if keep is None:
        found = least_rows(values, k + len(without))
    else:
        left_out = len(values) - int(np.count_nonzero(keep)) + len(without)
        if left_out > MANY:
            kept = np.flatnonzero(keep)
            found = kept[least_rows(values[kept], k + len(without))]
        else:
            found = least_rows(values, k + left_out)
            found = found[keep[found]]
    return found[~np.isin(found, without)][:k]
