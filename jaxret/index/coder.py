"""Which model an index is coded with, and how its files become codes."""

import functools
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from jaxret.index import contents, model
from jaxret.index.catalogue import Catalogue, Content, Staged
from jaxret.index.contents import Picture, Reading, UnreadableError
from jaxret.index.pipeline import in_order
from jaxret.index.places import PhotoIndexError, Place
from jaxret.index.scan import Listing, path_digest, sort_key

DEFAULT = "photo"
NAMES = ("photo", "look", "labels")


class Request(NamedTuple):
    """What a user wants of the model; None where nothing was said. See `build`."""

    model: str | None = None
    bits: int | None = None
    dims: int | None = None
    labels: Place | None = None
    vectors: Place | None = None
    rebuild: bool = False


class Choice(NamedTuple):
    """The model of a run.

    wanted: what it is made from; equal for an interrupted run and the next one. facts: None where
    it is still to be made. recodes: whether every image is coded anew.
    """

    wanted: dict[str, Any]
    facts: dict[str, Any] | None
    recodes: bool
    vectors: "Vectors | None"
    source: Place | None  # an encoder folder


class Vectors(NamedTuple):
    """Vectors of another model, and the row of each path; None: by the order of the listing."""

    rows: Float32[np.ndarray, "n d"]
    paths: dict[str, int] | None
    file: str


def settle_model(catalogue: Catalogue, facts: Mapping[str, Any], request: Request) -> Choice:
    """Decide which model a run codes with, before anything is read.

    Raises PhotoIndexError where the index has another one, or the request contradicts itself.
    """
    if request.bits is not None and request.dims is not None:
        raise PhotoIndexError("--bits and --dims exclude each other")
    if request.vectors is not None and request.model is not None:
        raise PhotoIndexError("--vectors and --model exclude each other")
    if request.vectors is not None and (request.bits or request.dims):
        raise PhotoIndexError("vectors are indexed as they are: leave out --bits and --dims")
    published, pending = facts.get("model"), facts.get("pending")
    vectors = None if request.vectors is None else read_vectors(request.vectors)
    wanted = _wanted(request, published)
    if published is None or request.rebuild:
        made = pending["model"] if pending and pending["asked"] == wanted else None
        recodes = request.rebuild and published is not None
        return Choice(wanted, made, recodes, vectors, _source(request, wanted, catalogue))
    _check_same(published, request, catalogue)
    return Choice(published["asked"], published, False, vectors, None)


def _source(request: Request, wanted: Mapping[str, Any], catalogue: Catalogue) -> Place | None:
    """Return the encoder folder that is meant: a user's own, or the one in the index already."""
    if not wanted["model"].startswith("encoder "):
        return None
    if request.model is not None:
        return request.model
    return catalogue.index / model.FOLDER / wanted["model"].removeprefix("encoder ")


def _wanted(request: Request, published: Mapping[str, Any] | None) -> dict[str, Any]:
    before = {} if published is None else published["asked"]
    given = {"model": request.model, "bits": request.bits, "dims": request.dims}
    if request.vectors is not None:
        given["model"] = model.VECTORS
    elif request.model is not None and is_encoder(request.model):
        given["model"] = f"encoder {model.digest_of(request.model)}"
    if given["model"] is None:
        given["model"] = before.get("model", DEFAULT)
        if given["bits"] is None and given["dims"] is None:
            given |= {"bits": before.get("bits"), "dims": before.get("dims")}
    if given["model"].startswith("encoder ") and (given["bits"] or given["dims"]):
        raise PhotoIndexError("an encoder folder has its own length: leave out --bits and --dims")
    return given


def is_encoder(name: str) -> bool:
    """Return whether a --model is an encoder folder rather than a name."""
    return name not in NAMES and (os.sep in name or os.path.isdir(name))


def title(facts: Mapping[str, Any]) -> str:
    """Return a model as it is named to a user, such as look/4f2a51c09b13."""
    return f"{facts['name']}/{facts['digest'][:12]}"


def _check_same(published: Mapping[str, Any], request: Request, catalogue: Catalogue) -> None:
    """Refuse a request for another model than the index has."""
    name, same = request.model, True
    if request.vectors is not None:
        same = published["name"] == model.VECTORS
    elif name is not None and is_encoder(name):
        same = model.digest_of(name) == published["digest"]
    elif name is not None:
        same = name in (published["name"], published["asked"]["model"])
    own = {published["kind"]: published["width"]}
    for kind, width in (("codes", request.bits), ("vectors", request.dims)):
        same = same and (width is None or own.get(kind) == width)
    if not same:
        raise PhotoIndexError(
            f"{catalogue.index}: this index was made with {title(published)} "
            f"({published['width']} {'bits' if published['kind'] == 'codes' else 'dims'}); use a "
            "new --index, or --rebuild"
        )


def read_vectors(file: Place) -> Vectors:
    """Return the vectors of an `.npy` file, with the paths that a `.txt` beside it names.

    Raises PhotoIndexError where they are no finite f32[n d], or the names are not as many.
    """
    path = Path(file)
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or "numpy.save makes one of floats [n d]"
        raise PhotoIndexError(f"{file}: no .npy file that can be read ({why})") from error
    if not isinstance(rows, np.ndarray):
        raise PhotoIndexError(f"{file}: holds several arrays, one .npy file is expected")
    if rows.ndim != 2 or rows.dtype.kind != "f" or not rows.size:
        raise PhotoIndexError(f"{file}: must hold floats [n d], got {rows.dtype}{list(rows.shape)}")
    rows = np.asarray(rows, np.float32)
    if not np.isfinite(rows).all():
        raise PhotoIndexError(f"{file}: must hold finite numbers")
    names = path.with_suffix(".txt")
    if not names.exists():
        return Vectors(rows, None, str(file))
    paths = [os.fsdecode(line) for line in names.read_bytes().splitlines()]
    if len(paths) != len(rows) or len(set(paths)) != len(paths):
        raise PhotoIndexError(
            f"{names}: must name {len(rows)} different paths, one for each row of {path.name}, "
            f"got {len(set(paths))}"
        )
    return Vectors(rows, {name: row for row, name in enumerate(paths)}, str(file))


class Coder:
    """Codes the files of one run.

    facts: those of the model, kept in the index. image_size: pixels a side to decode, None for no
    pixels. decoded: files that were read already. notes: what to tell the user.
    """

    def __init__(self, facts: dict[str, Any], image_size: int | None, encode: Callable):
        self.facts = facts
        self.digest: str = facts["digest"]
        self.image_size = image_size
        self.encode: Callable[[Sequence[Staged], Sequence[Picture]], np.ndarray] = encode
        self.encode_pixels: Callable[[np.ndarray], np.ndarray] = np.asarray
        self.decoded: dict[str, Reading] = {}
        self.notes: list[str] = []
        self.fault_of: Callable[[str], str] = lambda path: ""


def coder_for(
    catalogue: Catalogue, choice: Choice, listing: Listing, root: Path, tell: Callable
) -> Coder:
    """Make what codes the files of a run; learn the model first where there is none."""
    if choice.wanted["model"] == model.VECTORS:
        return _vectors_coder(choice, listing)
    facts, wanted = choice.facts, choice.wanted
    vectors = _kept_features(catalogue, wanted)
    decoded: dict[str, Reading] = {}
    notes: list[str] = []
    if facts is None and choice.source is not None:
        facts = model.install(catalogue.index, choice.source, "encoder")
    elif facts is None:
        hasher = model.make_hasher(wanted["model"], wanted["bits"], wanted["dims"])
        decoded, vectors = _sample(catalogue, wanted, listing, root, hasher, tell)
        labels = [label_of(path, catalogue.labels()) for path in decoded]
        rows = np.stack([vectors[reading.file.digest] for reading in decoded.values()])
        tell("learning", len(decoded), len(decoded))
        facts, notes = model.learn(catalogue.index, wanted["model"], hasher, rows, labels)
    if choice.facts is None:
        facts["asked"] = wanted
        with catalogue.transaction():
            catalogue.set_facts(pending={"asked": wanted, "model": facts})

    @functools.cache
    def encoder():  # where all contents are known it is not needed
        return model.load(catalogue.index, facts)

    def encode(files, pictures):
        unknown = [
            p.pixels for f, p in zip(files, pictures, strict=True) if f.digest not in vectors
        ]
        found = iter(encoder().features(np.stack(unknown)) if unknown else ())
        rows = [vectors[f.digest] if f.digest in vectors else next(found) for f in files]
        return encoder().codes(np.stack(rows))

    coder = Coder(facts, facts["image_size"], encode)
    coder.decoded, coder.notes = decoded, notes
    coder.encode_pixels = lambda pixels: encoder().encode(pixels)
    return coder


def label_of(path: str, labels: Mapping[str, str]) -> str | None:
    """Return the label of a path: by a CSV file where one was given, else its first folder."""
    if labels:
        return labels.get(path)
    first, slash, _ = path.partition("/")
    return first if slash else None


Sample = tuple[dict[str, Reading], dict[bytes, np.ndarray]]


def _sample(
    catalogue: Catalogue,
    wanted: dict[str, Any],
    listing: Listing,
    root: Path,
    hasher: Any,
    tell: Callable,
) -> Sample:
    """Read the images that bits are learned from; return them by path, and vectors by digest.

    Their features are kept a batch at a time, so that an interrupted run does not compute them
    again. Pixels are not kept.
    """
    paths, key = _sample_paths(catalogue, wanted, listing), _key(wanted)
    known = {content.digest: content for content in catalogue.contents_by(key)}
    vectors = _kept_features(catalogue, wanted)
    size, features = model.image_size_of(hasher), model.features_of(hasher)

    def read(path):
        try:
            return contents.read(os.path.join(root, path), path, size, known)
        except UnreadableError:
            return None

    found: dict[str, Reading] = {}
    batch: list[tuple[Staged, Picture]] = []
    for number, (path, reading) in enumerate(zip(paths, in_order(read, paths), strict=True), 1):
        tell("learning", number, len(paths))
        if reading is not None:
            picture = reading.picture
            if picture is None:
                content = known[reading.file.digest]
                picture = Picture(contents.NO_PIXELS, *content[2:])
            else:
                batch.append((reading.file, picture))
            found[path] = Reading(reading.file, picture._replace(pixels=contents.NO_PIXELS))
        if batch and (len(batch) == model.FLUSH or number == len(paths)):
            rows = features(np.stack([picture.pixels for _, picture in batch]))
            _keep_features(catalogue, key, batch, rows)
            vectors |= {file.digest: row for (file, _), row in zip(batch, rows, strict=True)}
            batch = []
    if not found:
        raise PhotoIndexError(f"{root}: none of its {len(paths)} image files can be read")
    return found, vectors


def _key(wanted: Mapping[str, Any]) -> str:
    """Return the name under which features to learn from are kept among the contents."""
    return f"sample {wanted['model']}"


def _kept_features(catalogue: Catalogue, wanted: Mapping[str, Any]) -> dict[bytes, np.ndarray]:
    """Return the features that an interrupted run has left, by digest."""
    kept = catalogue.contents_by(_key(wanted))
    return {content.digest: np.frombuffer(content.code, np.float32) for content in kept}


def _keep_features(
    catalogue: Catalogue, key: str, batch: Sequence[tuple[Staged, Picture]], rows: np.ndarray
) -> None:
    if rows.ndim != 2 or rows.dtype != np.float32:  # pixels of a hasher without features
        return
    coded = [
        Content(file.digest, row.tobytes(), picture.width, picture.height, picture.taken)
        for (file, picture), row in zip(batch, rows, strict=True)
    ]
    with catalogue.transaction():
        catalogue.stage([file for file, _ in batch], coded, key)


def _sample_paths(catalogue: Catalogue, wanted: dict[str, Any], listing: Listing) -> list[str]:
    """Return the images to learn from, chosen by the digests of their paths.

    They are recorded before anything is coded: an interrupted run learns from the same.
    """
    recorded = catalogue.facts().get("sample")
    if recorded and recorded["asked"] == wanted:
        return [path for path in recorded["paths"] if path in listing.files]
    able = [p for p, entry in listing.files.items() if not contents.fault_of(p, entry)]
    size = model.SAMPLES.get(wanted["model"], model.SAMPLE)
    paths = sorted(sorted(able, key=path_digest)[:size], key=sort_key)
    with catalogue.transaction():
        catalogue.set_facts(sample={"asked": wanted, "paths": paths})
    return paths


def _vectors_coder(choice: Choice, listing: Listing) -> Coder:
    """Make a coder that looks vectors up; pixels are not decoded."""
    given, facts = choice.vectors, choice.facts
    if given is None:
        if facts is None:
            raise PhotoIndexError("--rebuild of an index of vectors needs --vectors FILE.npy")
        given = Vectors(np.zeros((0, facts["width"]), np.float32), {}, "--vectors FILE.npy")
    rows, paths = given.rows, given.paths
    if paths is None:
        if len(rows) != len(listing.files):
            raise PhotoIndexError(
                f"{given.file}: has {len(rows)} rows for {len(listing.files)} images; name them in "
                f"{Path(given.file).with_suffix('.txt').name}, a path on each line"
            )
        paths = {path: row for row, path in enumerate(listing.files)}
    width = rows.shape[1]
    if facts is None:
        facts = {
            "name": model.VECTORS,
            "digest": "",
            "kind": "vectors",
            "width": width,
            "image_size": None,
            "asked": choice.wanted,
        }
    if facts["width"] != width:
        raise PhotoIndexError(
            f"{given.file}: vectors of {width} numbers, the index has {facts['width']}; --rebuild"
        )

    def encode(files, pictures):
        return rows[[paths[file.path] for file in files]]

    coder = Coder(facts, None, encode)
    coder.fault_of = lambda path: "" if path in paths else f"no vector in {given.file}"
    return coder
