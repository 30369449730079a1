"""Every public function with arguments that it takes: what tests/test_fuzz.py gives other forms.

CALLS names each function that takes arrays or numbers; EXEMPT names the others, with the reason. A
public name that is in neither fails a test. Run as a script it fuzzes them, outside the type
checks that the tests install, as a user calls them:

    python tests/public_calls.py [--examples=40]
"""

import argparse
import functools
import inspect
import resource
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxret
from jaxret import codes, divergences, evaluate, hashers, inputs, metrics, search
from jaxret.data import resize_images, sample_rows

PACKAGE = Path(jaxret.__file__).parent  # a checkout may be named jaxret too
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
LATENTS = np.round(RNG.normal(size=(6, 40)) * 4).astype(np.float32)
LATENTS[LATENTS == 0] = 1  # as integers they are signs as well
CODES = np.asarray(codes.pack(LATENTS))
GALLERY = np.asarray(codes.pack(RNG.normal(size=(20, 40)).astype(np.float32)))
VECTORS = np.round(RNG.normal(size=(20, 8)) * 4).astype(np.float32)
QUERY = np.round(RNG.normal(size=(6, 8)) * 4).astype(np.float32)
IMAGES = RNG.integers(0, 256, (20, 8, 8, 1)).astype(np.uint8)
FLOATS = (IMAGES / 255).astype(np.float32)
LABELS, QUERY_LABELS = (np.arange(n) % 3 for n in (20, 6))
RELEVANT = RNG.random((6, 10)) < 0.5
TOTAL = RNG.integers(0, 2, (6, 5)) + 2
FOUND = np.minimum(TOTAL, RNG.integers(0, 3, (6, 5)))
MEMORY = 4 * 2**30  # bytes
MASK = RNG.random(20) < 0.5


class Call(NamedTuple):
    """A function and arguments by name; those of `varied`, or all, are given other forms."""

    function: Callable
    arguments: dict[str, Any]
    varied: tuple[str, ...] = ()


def call(function: Callable, *varied: str, **arguments: Any) -> Call:
    """Make a call."""
    return Call(function, arguments, varied or tuple(arguments))


@functools.cache
def fitted(name: str) -> tuple[Any, Any]:
    """Return a hasher of a few bits and its params."""
    hasher = hashers.HASHERS[name](4)
    return hasher, hasher.fit(KEY, IMAGES)[0]


@functools.cache
def loaded() -> Any:
    """Return an encoder that was saved and loaded."""
    with tempfile.TemporaryDirectory() as folder:
        hashers.save_encoder(folder, *fitted("pcah"), image_size=(8, 8, 1))
        return hashers.load_encoder(folder, batch_size=20)


@functools.cache
def gallery(kind: str = "codes") -> Any:
    """Return a gallery of codes, or of vectors."""
    names = [str(row) for row in range(20)]
    if kind == "codes":
        return jaxret.Gallery.from_codes(GALLERY, 40, names=names, labels=LABELS)
    return jaxret.Gallery.from_vectors(VECTORS, names=names, labels=LABELS)


def encoded(hasher: Any, images: Any) -> Any:
    """Return the codes of images by a hasher that learned from other ones."""
    return hasher.encode(fitted("pcah")[1], images)


def learned(name: str, images: Any) -> Any:
    """Return the codes of fixed images by a hasher that learns from these."""
    hasher = hashers.HASHERS[name](4)
    return hasher.encode(hasher.fit(KEY, images)[0], IMAGES)


@functools.cache
def network() -> Any:
    """Return a network that could learn three classes."""
    return hashers.deep_hasher(4, 3, (8, 8, 1), epochs=1, batch_size=10)


def network_refuses(images: Any, labels: Any) -> Any:
    """Return what a network checks before it trains."""
    training = network().training
    images = inputs.accept(images, training.image_shape)
    training.check(images, labels)
    return images


def grown(codes: Any, ids: Any, labels: Any) -> Any:
    """Return the nearest rows of a gallery to which rows were added."""
    own = jaxret.Gallery.from_codes(GALLERY, 40, labels=LABELS)
    own.add(codes, ids=ids, labels=labels)
    return own.search(CODES, 30), own.labels_of(own.ids)


def thinned(ids: Any) -> Any:
    """Return the nearest rows of a gallery from which rows were removed."""
    own = jaxret.Gallery.from_codes(GALLERY, 40)
    own.remove(ids)
    return own.search(CODES, 5)


TWO = {"query": QUERY, "gallery": VECTORS}
CODED = {"query": CODES, "gallery": GALLERY}
SCORED = {"query_labels": QUERY_LABELS, "gallery_labels": LABELS}

CALLS = {
    "codes.num_words": call(codes.num_words, bits=40),
    "codes.pack": call(codes.pack, z=LATENTS),
    "codes.unpack": call(codes.unpack, codes=CODES, bits=40),
    "codes.pack_mask": call(codes.pack_mask, mask=MASK),
    "search.hamming_topk": call(search.hamming_topk, **CODED, k=5, mask=MASK),
    "search.euclidean_topk": call(search.euclidean_topk, **TWO, k=5, mask=MASK),
    "search.hamming_range": call(search.hamming_range, **CODED, radius=18, limit=9),
    "search.euclidean_range": call(search.euclidean_range, **TWO, squared_radius=90, limit=9),
    "search.coarse_to_fine_topk": call(
        search.coarse_to_fine_topk, query_codes=CODES, query=QUERY, gallery_codes=GALLERY,
        gallery=VECTORS, k=5, radius=3,
    ),
    "search.streamed_topk": call(search.streamed_topk, query=CODES, rows=GALLERY, k=5),
    "search.lay_out": call(lambda rows: search.lay_out(rows).topk(CODES, 5), rows=GALLERY),
    "search.shard": call(
        lambda rows: search.sharded_topk(CODES, search.shard(rows, jax.make_mesh((1,), ("i",))), 5),
        rows=GALLERY,
    ),
    "search.check_codes": call(search.check_codes, "codes", name="codes", codes=CODES),
    "search.check_vectors": call(search.check_vectors, "vectors", name="rows", vectors=VECTORS),
    "search.few_sizes": call(search.few_sizes, count=9),
    "metrics.same_label": call(metrics.same_label, query=QUERY_LABELS, neighbors=TOTAL),
    "metrics.share_a_label": call(
        metrics.share_a_label, query=RELEVANT[:, :3], neighbors=RELEVANT[:, :9].reshape(6, 3, 3)
    ),
    "metrics.average_precision": call(
        metrics.average_precision, relevant=RELEVANT, num_relevant=np.full(6, 10)
    ),
    "metrics.ap_divisor": call(
        metrics.ap_divisor, "relevant", "num_relevant",
        relevant=RELEVANT, num_relevant=np.full(6, 10), name="min",
    ),
    "metrics.mean_average_precision": call(
        metrics.mean_average_precision, relevant=RELEVANT, num_relevant=np.full(6, 10)
    ),
    "metrics.precision_at": call(metrics.precision_at, relevant=RELEVANT, ks=np.array([1, 5])),
    "metrics.recall_at": call(
        metrics.recall_at, relevant=RELEVANT, num_relevant=np.full(6, 10), ks=np.array([1, 5])
    ),
    "metrics.counts_by_distance": call(
        metrics.counts_by_distance,
        distances=np.sort(RNG.integers(0, 5, (6, 10))), relevant=RELEVANT, levels=5,
    ),
    "metrics.tie_aware_average_precision": call(
        metrics.tie_aware_average_precision, "total", "relevant", "k",
        total=TOTAL, relevant=FOUND, divisor="retrieved", k=4,
    ),
    "metrics.precision_recall_curve": call(
        metrics.precision_recall_curve, total=TOTAL, relevant=FOUND
    ),
    "metrics.precision_within_radius": call(
        metrics.precision_within_radius, total=TOTAL, relevant=FOUND, radius=2
    ),
    "metrics.majority_label": call(metrics.majority_label, neighbors=TOTAL),
    "metrics.label_scores": call(metrics.label_scores, labels=LABELS, predicted=LABELS[::-1]),
    "metrics.confusion_counts": call(
        metrics.confusion_counts, labels=LABELS, predicted=LABELS[::-1], num_classes=3
    ),
    "metrics.clustering_scores": call(
        metrics.clustering_scores, labels=LABELS, clusters=LABELS[::-1]
    ),
    "evaluate.encode_in_batches": call(
        lambda images: evaluate.encode_in_batches(*encode_and_params("pcah"), images, 20),
        images=IMAGES,
    ),
    "evaluate.retrieval_scores": call(evaluate.retrieval_scores, **TWO, **SCORED),
    "evaluate.nearest": call(evaluate.nearest, "query", "gallery", "k", **TWO, k=5,
                             distance="cosine"),
    "evaluate.images_in_both": call(evaluate.images_in_both, gallery=IMAGES, query=IMAGES[:3]),
    "divergences.unit_rows": call(divergences.unit_rows, "rows", rows=VECTORS, side=0),
    "positives.knn_positives": call(jaxret.knn_positives, images=IMAGES, count=2),
    "inputs.accept": call(inputs.accept, values=IMAGES),
    "inputs.accept of floats": call(inputs.accept, values=FLOATS),
    "data.resize_images": call(resize_images, images=IMAGES, image_size=6),
    "data.sample_rows": call(sample_rows, n=20, count=5, seed=3),
    "Hasher.encode": call(lambda images: encoded(fitted("pcah")[0], images), images=IMAGES),
    "Hasher.encode of floats": call(lambda x: encoded(fitted("pcah")[0], x), x=FLOATS),
    "Hasher.fit": call(lambda images: learned("pcah", images), images=IMAGES),
    "Hasher.fit of a network": call(network_refuses, images=IMAGES, labels=LABELS),
    "Encoder.encode": call(lambda images: loaded().encode(images), images=IMAGES),
    "Gallery.from_codes": call(
        lambda codes, bits, ids, labels: jaxret.Gallery.from_codes(
            codes, bits, ids=ids, labels=labels
        ).search(CODES, 5),
        codes=GALLERY, bits=40, ids=np.arange(20) * 3, labels=LABELS,
    ),
    "Gallery.from_vectors": call(
        lambda x: jaxret.Gallery.from_vectors(x).search(QUERY, 5), x=VECTORS
    ),
    "Gallery.search": call(
        lambda query, k, keep: gallery().search(query, k, keep=keep),
        query=CODES, k=5, keep=np.array([3, 1, 7, 9]),
    ),
    "Gallery.search of vectors": call(
        lambda query, k, keep: gallery("vectors").search(query, k, keep=keep),
        query=QUERY, k=5, keep=MASK,
    ),
    "Gallery.range_search": call(
        lambda query, radius, limit: gallery().range_search(query, radius, limit=limit),
        query=CODES, radius=18, limit=9,
    ),
    "Gallery.names_of": call(lambda ids: gallery().names_of(ids), ids=np.array([3, 1, 7])),
    "Gallery.labels_of": call(lambda ids: gallery().labels_of(ids), ids=np.array([3, 1, -1])),
    "Gallery.add": call(
        grown, codes=GALLERY[:3], ids=np.array([50, 60, 70]), labels=np.array([1, 2, 0])
    ),
    "Gallery.remove": call(thinned, ids=np.array([3, 1, 7])),
}  # fmt: skip

INSIDE = "called inside programs, where types are known"
EXEMPT = {
    "codes.bit": INSIDE,
    "codes.is_traced": INSIDE,
    "codes.mask_of_rows": INSIDE,
    "codes.first_bits": INSIDE,
    "codes.words_from_row": INSIDE,
    "search.sharded_topk": "searched behind search.shard",
    "evaluate.evaluate": "encode_in_batches, then retrieval_scores",
    "evaluate.describe": "a protocol, no arrays",
    "Gallery.update": "remove, then add",
    "Gallery.load": "a path: tests/test_fuzz.py damages the files",
    "Gallery.open": "a path, as load",
    "Gallery.save": "a path",
    "jaxret.load": "a name and paths: tests/test_data_folder.py",
    "jaxret.load_protocol": "a name and paths",
    "jaxret.read_image": "a path: tests/test_fuzz.py damages the file",
    "jaxret.load_encoder": "a path: tests/test_fuzz.py damages the files",
    "jaxret.save_encoder": "a path and what fit gives",
}
# Doors that compile for seconds.
COMPILES = (
    "search.hamming", "search.euclidean", "search.streamed", "search.shard", "metrics.tie_aware",
    "metrics.counts", "metrics.recall", "metrics.mean", "metrics.ap", "positives", "evaluate",
    "Gallery.range", "Gallery.add", "Gallery.remove", "Gallery.from_vectors",
)  # fmt: skip
# Forms of another shape: whatever accepts them compiles for it.
RESHAPED = (
    "one axis more", "one axis less", "a scalar", "shorter", "longer", "empty", "transposed",
    "no columns",
)  # fmt: skip
MODULES = (codes, divergences, evaluate, inputs, metrics, search)


def encode_and_params(name: str) -> tuple[Callable, Any]:
    """Return encode and params of a hasher."""
    hasher, params = fitted(name)
    return hasher.encode, params


def public_names() -> set[str]:
    """Return the public functions of the package: module.name, and the methods of Gallery."""
    names = set()
    for module in MODULES:
        for name in {*vars(module), *getattr(module, "__all__", ())}:  # some are imported late
            value = getattr(module, name)
            own = getattr(value, "__module__", "").startswith(module.__name__)
            if inspect.isfunction(value) and own and not name.startswith("_"):
                names.add(f"{module.__name__.removeprefix('jaxret.')}.{name}")
    for name in jaxret.__all__:
        value = getattr(jaxret, name)
        if inspect.isfunction(value) and not name.endswith("_hasher"):
            module = value.__module__.removeprefix("jaxret.").split(".")[0]
            names.add(f"{module}.{name}" if module in ("codes", "positives") else f"jaxret.{name}")
    methods = {n for n in vars(jaxret.Gallery) if not n.startswith("_")}
    names |= {f"Gallery.{n}" for n in methods if callable(getattr(jaxret.Gallery, n))}
    searches = {"jaxret.hamming_topk", "jaxret.euclidean_topk"}
    return names - searches  # entries of search


# Forms. What keeps the values must give the same result or be refused.


def arrays_of_another_form(array: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return forms of an array with the same values and shape."""

    def strided():
        wide = np.zeros([2 * length for length in array.shape], array.dtype)
        place = tuple(slice(None, None, 2) for _ in array.shape)
        wide[place] = array
        return wide[place]

    def readonly():
        copy = array.copy()
        copy.flags.writeable = False
        return copy

    def mapped():
        with tempfile.NamedTemporaryFile() as file:
            file.write(array.tobytes())
            file.flush()
            return np.memmap(file.name, array.dtype, "r", shape=array.shape)

    forms: dict[str, Callable[[], Any]] = {
        "strided": strided,
        "column by column": lambda: np.asfortranarray(array),
        "backwards": lambda: np.ascontiguousarray(array[::-1])[::-1],
        "read-only": readonly,
        "mapped": mapped,
        "of JAX": lambda: jnp.asarray(array),
        "a list": array.tolist,
        "a tuple": lambda: tuple(array.tolist()),
        "of objects": lambda: array.astype(object),
        "other byte order": lambda: array.astype(array.dtype.newbyteorder()),
    }
    kinds = "?bhilqBHILQefdFD"
    for kind in kinds:
        with np.errstate(all="ignore"):
            other = array.astype(kind)
            same = np.array_equal(other.astype(complex), array.astype(complex))
        if same and other.dtype != array.dtype:
            forms[f"as {other.dtype}"] = lambda other=other: other
    return forms


def arrays_of_another_value(array: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return what is not the array: other ranks, lengths and values, and no array at all."""
    forms: dict[str, Callable[[], Any]] = {
        "one axis more": lambda: array[None],
        "one axis less": lambda: array[0],
        "a scalar": lambda: array.reshape(-1)[0],
        "shorter": lambda: array[:-1],
        "longer": lambda: np.concatenate([array, array[:1]]),
        "empty": lambda: array[:0],
        "None": lambda: None,
        "text": lambda: "text",
        "of text": lambda: array.astype(str),
        "of dates": lambda: np.zeros(array.shape, "M8[s]"),
        "ragged": lambda: [[1, 2], [3]],
        "a dictionary": lambda: {"a": 1},
    }
    if array.ndim > 1:
        forms["transposed"] = lambda: array.T
        forms["no columns"] = lambda: array[..., :0]
    if array.dtype.kind == "f":
        for name, value in {"NaN": np.nan, "infinity": np.inf, "huge": 3e38}.items():
            forms[name] = lambda value=value: np.full_like(array, value)
    elif array.dtype.kind in "iu":
        forms["negative"] = lambda: -1 - array.astype(np.int64)
        forms["huge"] = lambda: array.astype(np.int64) + 2**40
        forms["beyond int64"] = lambda: np.full(array.shape, 2**64 - 1, np.uint64)
        forms["halves"] = lambda: array + 0.5
    return forms


def numbers_of_another_form(number: int) -> dict[str, Callable[[], Any]]:
    """Return forms of a whole number."""
    kinds = (np.int8, np.uint8, np.int16, np.int64, np.uint64, np.float16, np.float32, np.float64)
    forms = {kind.__name__: functools.partial(kind, number) for kind in kinds}
    return forms | {
        "without axes": lambda: np.array(number),
        "of JAX": lambda: jnp.asarray(number),
        "a float": lambda: float(number),
    }


def numbers_of_another_value(number: int) -> dict[str, Callable[[], Any]]:
    """Return what is not the number."""
    values = {
        "zero": 0, "negative": -1, "huge": 2**31, "beyond int64": 2**64, "a half": number + 0.5,
        "NaN": float("nan"), "infinity": float("inf"), "text": str(number), "None": None,
        "a list": [number], "an array": np.array([number]), "True": True, "complex": 1j,
    }  # fmt: skip
    return {name: functools.partial(lambda value: value, value) for name, value in values.items()}


def forms_of(value: Any) -> tuple[dict[str, Callable], dict[str, Callable]]:
    """Return forms with the value, and forms with another one."""
    if isinstance(value, np.ndarray):
        return arrays_of_another_form(value), arrays_of_another_value(value)
    return numbers_of_another_form(value), numbers_of_another_value(value)


def outcome(function: Callable, arguments: dict[str, Any]) -> tuple[Any, str]:
    """Return the result, as leaves, or a refusal; and what breaks the rule of refusals."""
    try:
        leaves = jax.tree.leaves(function(**arguments))
        return [np.asarray(leaf) for leaf in leaves], ""
    except (ValueError, TypeError) as error:
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        text = str(error)
        if "\n" in text:
            return None, f"refused in {text.count(chr(10)) + 1} lines: {text.splitlines()[0]}"
        if not Path(place).is_relative_to(PACKAGE):
            return None, f"refused by a library, not by us: {type(error).__name__}: {text}"
        return None, ""
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error).splitlines()[:1]}"


@functools.cache
def canonical(name: str) -> Any:
    """Return the result of a call for its own arguments."""
    result, problem = outcome(CALLS[name].function, CALLS[name].arguments)
    assert result is not None, f"{name} refuses its own arguments: {problem}"
    return result


def problem_of(name: str, changes: dict[str, str]) -> str:
    """Return what is wrong with a call where some arguments have another form, or nothing."""
    function, arguments, _ = CALLS[name]
    given, same = dict(arguments), True
    for argument, form in changes.items():
        kept, changed = forms_of(arguments[argument])
        given[argument] = (kept | changed)[form]()
        same = same and form in kept
    result, problem = outcome(function, given)
    if result is None or not same:
        return problem
    expected = canonical(name)
    equal = len(result) == len(expected) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-6)
        if a.dtype.kind in "fiub" and b.dtype.kind in "fiub" else np.array_equal(a, b)
        for a, b in zip(result, expected, strict=True)
    )  # fmt: skip
    return "" if equal else "another result, without a word"


def problem_of_pairs(name: str, forms: list[tuple[str, str]], examples: int) -> str:
    """Return what goes wrong first where two or three arguments have other forms, or nothing."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    @seed(0)
    @settings(
        max_examples=examples, deadline=None, database=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(st.sampled_from(forms), min_size=2, max_size=3))
    def pairs(changes):
        problem = problem_of(name, dict(changes))
        assert not problem, f"{name}({dict(changes)}): {problem}"

    try:
        pairs()
    except AssertionError as error:
        return str(error).splitlines()[0]
    return ""


def main() -> None:
    """Fuzz each call and print what is wrong, one line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=0, help="pairs of forms drawn per call")
    parser.add_argument("--quick", action="store_true", help="leave out what compiles for seconds")
    parser.add_argument("--call", default="", help="only calls whose name holds this")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))  # what takes all memory is a defect
    for name, (_, arguments, varied) in CALLS.items():
        if options.call not in name or (options.quick and name.startswith(COMPILES)):
            continue
        forms = [(a, form) for a in varied for both in forms_of(arguments[a]) for form in both]
        if options.quick:
            forms = [(argument, form) for argument, form in forms if form not in RESHAPED]
        for argument, form in forms:
            if problem := problem_of(name, {argument: form}):
                print(f"{name}({argument}: {form}): {problem}", flush=True)
        if options.examples and (problem := problem_of_pairs(name, forms, options.examples)):
            print(problem, flush=True)


if __name__ == "__main__":
    main()
