"""One search by all processes of jax.distributed: of shares of one index, or of an index each."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.index import snapshot
from jaxret.index.coder import title
from jaxret.index.places import PhotoIndexError
from jaxret.index.query import AnyQuery, Found, Query, Resolver, check_request, rank
from jaxret.index.reader import Filters, Image, View, view


def start() -> int:
    """Join the processes of a job and return the number of this one.

    The environment has JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, or is a cluster that JAX knows.

    Raises PhotoIndexError where there is no such job.
    """
    import jax

    _keep_stdout()
    try:
        names = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
        numbers: dict[str, Any] = {
            name: int(os.environ[key]) for name, key in names.items() if key in os.environ
        }
        jax.distributed.initialize(**numbers)
        return jax.process_index()
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PhotoIndexError(
            f"--distributed: there is no job of several processes here ({reason}); set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error


def _keep_stdout() -> None:
    """Let Python alone write to stdout: JAX's transport (Gloo) prints there."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = open(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)  # noqa: SIM115


def search(
    queries: Sequence[AnyQuery],
    index: Path,
    *,
    negative: Sequence[AnyQuery] = (),
    n: int = 20,
    max_distance: float | int | None = None,
    filters: Filters | None = None,
) -> Found:
    """Return what `query.search` returns, found by all processes of the job; all get the answer.

    Where all processes have one index, each searches its share of the rows. Where each has its own,
    such as a shard, it searches all of that: of equal distances those of process 0 come first, and
    ids are of their own index, so that queries are files. Process 0 codes the queries.

    Args:
        queries: see `query.search`; the same in all processes.
        index: its folder, as this process sees it.
        negative: as for `query.search`.
        n: as for `query.search`.
        max_distance: as for `query.search`.
        filters: as for `query.search`.

    Raises:
        PhotoIndexError: in all processes, where one of them has no index or the request breaks a
            rule.
    """
    import jax

    check_request(queries, negative, n, max_distance)
    process = jax.process_index()
    with contextlib.ExitStack() as stack:
        opened, seen = in_every_process(lambda: _opened(stack.enter_context(view(index))))
        shared = all(one == opened[0] for one in opened)
        _check_one_model(opened)
        named = [*queries, *negative]
        resolved, own = in_every_process(lambda: _resolved(seen, named, shared, process))
        first = len(queries)
        known = [
            Query(
                query["name"], query["file"], tuple(ids), _code(query["code"], seen), row >= first
            )
            for row, (query, ids) in enumerate(zip(resolved[0], own, strict=True))
        ]
        part = _share(seen, process, len(opened)) if shared else seen
        limits = {"n": n, "max_distance": max_distance, "filters": filters}
        own_known = [_within(part, query) for query in known]
        answers, found = in_every_process(lambda: _plain(rank(part, own_known, **limits)))
    results = [
        (image["distance"], number, row, image)
        for number, answer in enumerate(answers)
        for row, image in enumerate(answer["results"])
    ]
    best = [Image(**image) for *_, image in sorted(results, key=lambda item: item[:3])[:n]]
    searched, within = (sum(answer[name] for answer in answers) for name in ("searched", "within"))
    images = sum(answer["images"] for answer in answers)
    return Found(found.index | {"images": images}, known, best, searched, within)


def _opened(seen: View) -> tuple[dict[str, Any], View]:
    model = seen.facts["model"]
    named = {name: seen.facts.get(name) for name in ("generation", "updated", "next_id")}
    return {"model": title(model), "width": model["width"], "kind": model["kind"], **named}, seen


def _check_one_model(opened: Sequence[dict[str, Any]]) -> None:
    for number, one in enumerate(opened):
        if [one[name] for name in ("model", "width", "kind")] != [
            opened[0][name] for name in ("model", "width", "kind")
        ]:
            raise PhotoIndexError(
                f"process {number} has an index of {one['model']}, process 0 of "
                f"{opened[0]['model']}: one encoder must have made them all"
            )


def _resolved(
    seen: View, named: Sequence[AnyQuery], shared: bool, process: int
) -> tuple[list[dict[str, Any]], list[Sequence[int]]]:
    """Return what process 0 tells of the queries, and the ids that are a query itself here."""
    resolve, told, own = Resolver(seen), [], []
    for name in named:
        if isinstance(name, int) and not shared:
            raise PhotoIndexError(f"id:{name} is in every index: name a file")
        if process == 0 or isinstance(name, int):
            query = resolve(name)
            told.append({"name": query.name, "file": query.file, "code": query.code.tolist()})
            own.append(query.ids)
        else:
            own.append(resolve.itself(name) if isinstance(name, (str, os.PathLike)) else ())
    return told, own


def _code(numbers: list[Any], seen: View) -> np.ndarray:
    return np.array(numbers, snapshot.DTYPES[seen.snapshot.kind])


def _share(seen: View, process: int, processes: int) -> View:
    """Return a view of the rows that are this process's."""
    rows = seen.snapshot
    ends = [len(rows.ids) * number // processes for number in (process, process + 1)]
    part = slice(*ends)
    return seen._replace(snapshot=rows._replace(ids=rows.ids[part], values=rows.values[part]))


def _within(part: View, query: Query) -> Query:
    """Return a query whose ids are those that a share of the rows has."""
    return query._replace(ids=tuple(i for i in query.ids if np.isin(i, part.snapshot.ids)))


def _plain(found: Found) -> tuple[dict[str, Any], Found]:
    answer = {
        "results": [image._asdict() for image in found.results],
        "searched": found.searched,
        "within": found.within,
        "images": found.index["images"],
    }
    return answer, found


def in_every_process(function: Callable[[], tuple[Any, Any]]) -> tuple[list[Any], Any]:
    """Run a function in every process; return the first values of all, and the own second one.

    First values are plain JSON. A failure in one process is one in all: none is left waiting.
    """
    value, own, failure = None, None, None
    try:
        value, own = function()
    except PhotoIndexError as error:
        failure = str(error)
    told = _gather({"value": value, "failure": failure})
    for number, answer in enumerate(told):
        if answer["failure"] is not None:
            raise PhotoIndexError(f"process {number}: {answer['failure']}")
    return [answer["value"] for answer in told], own


def _gather(value: Any) -> list[Any]:
    """Return a plain value of each process."""
    from jax.experimental.multihost_utils import process_allgather

    own = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.asarray(process_allgather(np.array([len(own)], np.int32))).reshape(-1)
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(own)] = own
    rows = np.asarray(process_allgather(padded)).reshape(len(lengths), -1)
    return [
        json.loads(bytes(row[:length]).decode()) for row, length in zip(rows, lengths, strict=True)
    ]
