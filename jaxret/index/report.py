"""What an index is, what it knows of a file, and whether every byte of it is as it was written."""

import datetime
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.gallery import store
from jaxret.index import groups, model, snapshot, thumbs
from jaxret.index.catalogue import Skipped
from jaxret.index.contents import UnreadableError
from jaxret.index.places import PhotoIndexError
from jaxret.index.query import Query, Resolver, distance_between
from jaxret.index.reader import Image, View, images_of, view
from jaxret.index.update import bytes_of


def info(index: Path) -> dict[str, Any]:
    """Return what an index is: model, sizes, settings, skipped files, advice. Plain values."""
    with view(index) as seen:
        facts, model_facts = seen.facts, seen.facts["model"]
        skipped: list[Skipped] = seen.catalogue.skipped()
        missing = seen.catalogue.query("SELECT count(*) FROM images WHERE missing")[0][0]
        updated = facts.get("updated")
        described = {
            **seen.describe(),
            "asked": model_facts["asked"],
            "learned_from": model_facts.get("learned_from"),
            "updated": updated and _iso(updated),
            "settings": facts.get("settings", {}),
            "labels": facts.get("labels", "folders"),
            "missing": missing,
            "bytes": bytes_of(index),
            "duplicate_radius": groups.default_radius(seen),
            "calibration": facts.get("calibration"),
            "advice": _advice(seen),
            "unreadable": skipped,
        }
    return described


def info_of(index: Path, name: str | os.PathLike | bytes | int) -> dict[str, Any]:
    """Return what an index knows of a file: its image, code, thumbnail. Plain values.

    A file that is not indexed is coded with the index's model; its id is then None.
    """
    with view(index) as seen:
        query = Resolver(seen)(name)
        described: dict[str, Any] = {"id": None, "file": query.file, **code_of(seen, query)}
        if query.ids:
            image = images_of(seen, query.ids[:1])[0]
            described |= _plain(image) | {"thumbnail": _thumbnail(index, image)}
        return {"index": seen.describe(), "image": described}


def info_between(index: Path, one: str | bytes | int, other: str | bytes | int) -> dict[str, Any]:
    """Return the distance between two images, indexed or not. Plain values."""
    with view(index) as seen:
        resolve = Resolver(seen)
        queries = resolve(one), resolve(other)
        found = {"metric": seen.snapshot.metric, "distance": distance_between(seen, *queries)}
        rows = [images_of(seen, query.ids[:1])[0] if query.ids else None for query in queries]
        named = [
            {"id": None if row is None else row.id, "file": query.file}
            for query, row in zip(queries, rows, strict=True)
        ]
        return {"index": seen.describe(), "images": named, **found}


def code_of(seen: View, query: Query) -> dict[str, Any]:
    """Return a query's code as text, bit 0 first, or its vector."""
    if seen.snapshot.kind == "vectors":
        return {"vector": [float(x) for x in query.code]}
    code = np.ascontiguousarray(query.code, "<u4")
    bits = np.unpackbits(code.view(np.uint8), bitorder="little")[: seen.snapshot.width]
    return {"code": "".join(map(str, bits.tolist()))}


def _plain(image: Image) -> dict[str, Any]:
    return image._asdict()


def _thumbnail(index: Path, image: Image) -> str | None:
    try:
        thumbs.thumbnail(index, image.file, image.digest)
    except UnreadableError:
        return None
    path = index / thumbs.FOLDER / image.digest[:2] / f"{image.digest}.webp"
    return str(path) if path.exists() else None


def _advice(seen: View) -> list[str]:
    facts = seen.facts["model"]
    count, learned = len(seen.snapshot.ids), facts.get("learned_from")
    advice = []
    fitted = facts.get("info", {}).get("fitted", 1.0)
    if not fitted and learned and count >= 2 * facts["width"]:
        advice.append(
            f"its bits are random projections, because it began with {learned} images; it has "
            f"{count} now: jaxret index PHOTOS --rebuild learns better ones"
        )
    return advice


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def verify(index: Path) -> list[str]:
    """Read every byte of an index and return what is wrong, a line for each; [] if nothing is."""
    wrong = []
    with view(index) as seen:
        for (line,) in seen.catalogue.query("PRAGMA integrity_check"):
            if line != "ok":
                wrong.append(f"catalogue: {line}")
        rows, facts = seen.snapshot, seen.facts["model"]
        folder = snapshot.folder_of(seen.catalogue, rows.generation)
        ids, codes = snapshot.gather(seen.catalogue, rows.kind, rows.width)
        try:
            header, columns = store.read(folder, mapped=False, verify=True)
            same = np.array_equal(columns["ids"], ids) and np.array_equal(
                columns[header["kind"]], codes
            )
            if not same:
                wrong.append(f"{folder}: is not what the catalogue says; remove it")
        except store.GalleryError as error:
            wrong.append(f"{error}; remove {folder}, it is made again")
        missing = seen.catalogue.query("SELECT count(*) FROM images")[0][0] - len(ids)
        if missing:
            wrong.append(f"catalogue: {missing} images have no code; jaxret index PHOTOS --rebuild")
        if facts["name"] != model.VECTORS:
            try:
                digest = model.digest_of(index / model.FOLDER / facts["digest"])
                if digest != facts["digest"]:
                    wrong.append(f"model: is {digest[:12]}, not {facts['digest'][:12]}")
            except PhotoIndexError as error:
                wrong.append(f"model: {error}")
    return wrong
