"""Out of an index and into one: exports for other programs, and shards that are joined."""

import csv
import importlib
import importlib.util
import io
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.files import write_whole
from jaxret.index import model, places, snapshot
from jaxret.index.catalogue import Catalogue, Content, Row
from jaxret.index.coder import title
from jaxret.index.places import PhotoIndexError, Place
from jaxret.index.reader import View, images_of, root_of, view
from jaxret.index.scan import sort_key

COLUMNS = ("id", "path", "label", "digest", "width", "height", "bytes", "taken")


def export(index: Path, folder: Place) -> list[Path]:
    """Write an index for other programs and return the files.

    codes.npy (u32[n w], bit j of word i is bit 32 i + j) or vectors.npy (f32[n d]); ids.npy
    (i64[n]); images.csv, one line an image in the same order; images.parquet where pyarrow is
    installed; index.faiss, which gives ids, where faiss is.

    Raises PhotoIndexError where the folder is not empty, and WriteError where it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PhotoIndexError(f"{folder}: an export needs an empty folder")
    with view(index) as seen:
        rows = seen.snapshot
        table = _table(seen)
        write_whole(folder / f"{rows.kind}.npy", _npy(rows.values))
        write_whole(folder / "ids.npy", _npy(rows.ids))
        write_whole(folder / "images.csv", _csv(table))
        for name, function in OPTIONAL.items():
            if importlib.util.find_spec(name) is not None:
                function(folder, rows, table)
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _table(seen: View) -> list[dict[str, Any]]:
    ids = seen.snapshot.ids.tolist()
    return [{name: getattr(image, name) for name in COLUMNS} for image in images_of(seen, ids)]


def _npy(array: np.ndarray) -> bytes:
    output = io.BytesIO()
    np.save(output, np.ascontiguousarray(array))
    return output.getvalue()


def _csv(table: list[dict[str, Any]]) -> bytes:
    output = io.StringIO(newline="")
    writer: Any = csv.DictWriter(output, COLUMNS)
    writer.writeheader()
    writer.writerows(table)
    return output.getvalue().encode("utf-8", "surrogateescape")


def _parquet(folder: Path, rows: snapshot.Snapshot, table: list[dict[str, Any]]) -> None:
    pyarrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    columns = {name: [row[name] for row in table] for name in COLUMNS}
    columns["path"] = [os.fsencode(path).decode(errors="replace") for path in columns["path"]]
    columns[rows.kind] = list(rows.values)
    pending = folder / ".images.tmp"
    parquet.write_table(pyarrow.table(columns), pending)
    os.replace(pending, folder / "images.parquet")


def _faiss(folder: Path, rows: snapshot.Snapshot, table: list[dict[str, Any]]) -> None:
    del table
    faiss = importlib.import_module("faiss")
    pending = folder / ".index.tmp"
    if rows.kind == "codes":  # whole words: bits that fill up are 0 in every code
        words = np.ascontiguousarray(rows.values, "<u4").view(np.uint8)
        index = faiss.IndexBinaryIDMap(faiss.IndexBinaryFlat(8 * words.shape[1]))
        index.add_with_ids(words, np.ascontiguousarray(rows.ids))
        faiss.write_index_binary(index, str(pending))
    else:
        index = faiss.IndexIDMap(faiss.IndexFlatL2(rows.width))
        index.add_with_ids(np.ascontiguousarray(rows.values), np.ascontiguousarray(rows.ids))
        faiss.write_index(index, str(pending))
    os.replace(pending, folder / "index.faiss")


OPTIONAL = {"pyarrow": _parquet, "faiss": _faiss}


def merge(target: Place, sources: Sequence[Place]) -> int:
    """Join the indexes of shards of one folder to a new one and return its number of images.

    Ids are given anew, in the order of paths: as if the whole folder had been indexed at once.
    Paths are below the root of the first. Shares without images add nothing. A join that fails
    leaves nothing.

    Raises PhotoIndexError where encoders differ, one path has two contents, or a share is missing.
    """
    target = Path(os.path.realpath(target))
    if (target / places.CATALOGUE).exists():
        raise PhotoIndexError(f"{target}: is an index already; merge makes a new one")
    if not sources:
        raise PhotoIndexError("merge needs at least one index to join")
    indexes = [places.find_index(given=source) for source in sources]
    _check_shares(indexes)
    indexes = [index for index in indexes if not _is_empty_share(index)] or indexes
    joined = _gather(indexes)  # refuses before anything is written
    before = places.before(target)
    places.prepare(target)
    with places.writing(target):
        try:
            _write(target, indexes[0], *joined)
        except BaseException:
            places.restore(target, before)
            raise
    return len(joined[0])


def _check_shares(indexes: Sequence[Path]) -> None:
    """Raise PhotoIndexError where shares are joined and one of them is missing."""
    found: dict[int, set[int]] = {}
    for index in indexes:
        with Catalogue(index) as catalogue:
            shard = catalogue.facts().get("settings", {}).get("shard")
        if shard is None:  # of the whole folder: it has every share's images
            return
        part, parts = shard
        found.setdefault(parts, set()).add(part)
    for parts, there in found.items():
        missing = sorted(set(range(1, parts + 1)) - there)
        if missing:
            raise PhotoIndexError(
                f"share {missing[0]}/{parts} is not among the indexes to join; make it by jaxret "
                f"index --shard {missing[0]}/{parts}, and name it too"
            )


def _is_empty_share(index: Path) -> bool:
    """Return whether a run has finished that found no image for this index, ever."""
    with Catalogue(index) as catalogue:
        facts = catalogue.facts()
        is_unread = not facts["generation"] and not catalogue.staged()
    return is_unread and facts.get("settings", {}).get("shard") is not None


def _write(
    target: Path, source: Path, merged: Sequence[tuple[Row, Content]], facts: Any, root: Path
) -> None:
    """Make an index of images, with the encoder of another index."""
    with Catalogue(target, write=True) as joint:
        _copy_model(source, target, facts["model"])
        with joint.transaction():
            rows, contents = [], []
            for number, (row, content) in enumerate(merged):
                rows.append(row._replace(id=number))
                contents.append(content)
            joint.stage([], contents, facts["model"]["digest"])
            joint.put(rows)
            kept = {name: facts[name] for name in ("model", "labels") if name in facts}
            settings = {**facts.get("settings", {}), "shard": None}
            place = ".." if target.parent == root else str(root)
            joint.set_facts(
                **kept,
                settings=settings,
                root=place,
                generation=1,
                next_id=len(rows),
                updated=time.time(),
            )
            snapshot.publish(joint, facts["model"]["kind"], facts["model"]["width"], 1)


def _gather(indexes: Sequence[Path]) -> tuple[list[tuple[Row, Content]], dict[str, Any], Path]:
    """Return the images of all indexes by path, the facts of the first, and their root."""
    merged: dict[str, tuple[Row, Content]] = {}
    first: dict[str, Any] | None = None
    root = Path()
    for index in indexes:
        with view(index) as seen:
            if first is None:
                first, root = seen.facts, root_of(index, seen.facts)
            own, other = first["model"], seen.facts["model"]
            if own["digest"] != other["digest"] or own["width"] != other["width"]:
                raise PhotoIndexError(
                    f"{index}: was made with {title(other)}, {indexes[0]} with {title(own)}: "
                    "only indexes of one encoder are joined"
                )
            for path, pair in _images(seen):
                known = merged.setdefault(path, pair)
                if known[0].digest != pair[0].digest:
                    raise PhotoIndexError(f"{index}: {path} has another content than elsewhere")
    ordered = [merged[path] for path in sorted(merged, key=sort_key)]
    assert first is not None
    return ordered, first, root


def _images(seen: View) -> Iterator[tuple[str, tuple[Row, Content]]]:
    rows = seen.catalogue.rows()
    contents = seen.catalogue.contents_of(row.digest for row in rows)
    for row in rows:
        yield row.path, (row, contents[row.digest])


def _copy_model(source: Path, target: Path, facts: dict[str, Any]) -> None:
    if facts["name"] == model.VECTORS:
        return
    folder = target / model.FOLDER / facts["digest"]
    if not folder.is_dir():
        shutil.copytree(source / model.FOLDER / facts["digest"], folder)
