"""The sub-commands: from options to an answer of `jaxret.index`, and from that to output."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxret import index
from jaxret.app import named, output, searching
from jaxret.app.cli import FOUND, SKIPPED
from jaxret.app.output import counted, number, shown, tell
from jaxret.app.progress import Progress

SHOWN = 10  # unreadable files that are named
LOOK = "similar in look, not in meaning"


def run(options: Namespace) -> int:
    """Run the command of parsed options and return the exit status."""
    return COMMANDS[options.command](options)


def _index(options: Namespace) -> int:
    progress = Progress(not options.quiet)
    try:
        summary = index.build(
            options.photos,
            named.place_to_write(options),
            model=options.model,
            bits=options.bits,
            dims=options.dims,
            labels=options.labels,
            vectors=options.vectors,
            exclude=options.exclude,
            hidden=options.hidden,
            recheck=options.recheck,
            rebuild=options.rebuild,
            forget_missing=options.forget_missing,
            shard=None if options.shard is None else index.Shard(*options.shard),
            progress=progress,
        )
    finally:
        progress.clear()
    if options.json:
        _index_json(summary)
    if not options.quiet:
        _index_lines(summary, options.photos)
    return SKIPPED if summary.skipped or summary.refused else FOUND


def _index_json(summary: Any) -> None:
    names = ("new", "changed", "moved", "removed", "missing", "unreadable", "ignored", "images")
    counts = {name: getattr(summary, name) for name in (*names, "refused", "seconds")}
    unreadable = [{"path": file.path, "reason": file.reason} for file in summary.skipped]
    output.write_json({"summary": counts, "unreadable": unreadable})


def _index_lines(summary: Any, photos: str) -> None:
    for file in summary.skipped[:SHOWN]:
        tell(f"skipped: {file.path}: {file.reason}")
    if len(summary.skipped) > SHOWN:
        tell(f"skipped: {len(summary.skipped) - SHOWN} more, see jaxret info --json")
    if summary.refused:
        tell(
            f"{summary.refused} of {summary.images} images are gone, and none of them was removed: "
            "is the folder mounted? --forget-missing removes them"
        )
    for note in summary.notes:
        tell(note)
    parts = [f"{getattr(summary, name)} {name}" for name in ("new", "changed", "moved", "removed")]
    rest = [
        f"{getattr(summary, name):,} {name}"
        for name in ("missing", "unreadable")
        if getattr(summary, name)
    ]
    look = f" ({LOOK})" if summary.model == "look" else ""
    following = ". Next: jaxret search PHOTO" if summary.images else ""
    tell(
        f"{counted(summary.images, 'image')}: {', '.join(parts + rest)}; {summary.seconds:.1f} s; "
        f"index {output.size(summary.index_bytes)}{look}{following}"
    )
    if not summary.images and not summary.skipped:
        tell(f"{photos}: holds no image to index; other files: {summary.ignored:,}")


def _info(options: Namespace) -> int:
    place = named.find(options, list(options.files))
    if len(options.files) > 2:
        raise ValueError(f"info is of at most two files, got {len(options.files)}")
    if options.verify:
        return _verify(options, place)
    if not options.files:
        return _info_of_index(options, place)
    named.check_one_stdin(options.files)
    queries = [named.query(name) for name in options.files]
    if len(queries) == 2:
        document = index.info_between(place, *queries)
        if options.json:
            output.write_json(document)
        else:
            output.write_line(number(document["distance"]), *map(str, options.files))
        return FOUND
    document = index.info_of(place, queries[0])
    image = document["image"]
    image = {name: value for name, value in image.items() if name != "distance"}
    if image["file"] is not None:
        image["path"] = shown(image["file"])
    if "modified" in image:
        from jaxret.app.schema import iso

        image["modified"] = iso(image["modified"])
    document["image"] = image
    if options.json:
        output.write_json(document)
    else:
        for name, value in image.items():
            if value is not None:
                output.write_line(name, str(value))
    return FOUND


def _info_of_index(options: Namespace, place: Path) -> int:
    document = index.info(place)
    unreadable = document.pop("unreadable")
    if options.json:
        listed = [{"path": file.path, "reason": file.reason} for file in unreadable]
        output.write_json({"index": document, "unreadable": listed})
        return FOUND
    unit = "bits" if "bits" in document else "dims"
    model = f"{document['model']}/{document['digest'][:12]}, {document[unit]} {unit}"
    if document["model"] == "look":
        model += f" ({LOOK})"
    lines = {
        "index": document["path"],
        "photos": document["root"],
        "images": f"{document['images']:,} ({document['missing']:,} missing)",
        "skipped": f"{counted(len(unreadable), 'file')} that cannot be read",
        "model": model,
        "labels": document["labels"],
        "updated": document["updated"],
        "generation": document["generation"],
        "size": output.size(document["bytes"]),
        "duplicates": f"within {number(document['duplicate_radius'])}",
    }
    for name, value in lines.items():
        output.write_line(name, str(value))
    for file in unreadable[:SHOWN]:
        tell(f"skipped: {file.path}: {file.reason}")
    for advice in document["advice"]:
        tell(advice)
    return FOUND


def _verify(options: Namespace, place: Path) -> int:
    wrong = index.verify(place)
    if options.json:
        output.write_json({"index": {"path": str(place)}, "wrong": wrong})
    for line in wrong:
        tell(line)
    if not wrong and not options.quiet:
        tell(f"{place}: every byte is as it was written")
    return 2 if wrong else FOUND


def _evaluate(options: Namespace) -> int:
    document = index.evaluate(named.find(options, []))
    if options.json:
        output.write_json(document)
        return FOUND
    for name, value in document["metrics"].items():
        is_count = name.startswith("queries")
        output.write_line(f"{value:.0f}" if is_count else f"{value:.4f}", name)
    if not options.quiet:
        protocol = document["protocol"]
        tell(
            f"{protocol['query']:,} images of {protocol['num_classes']:,} classes "
            f"({protocol['classes']}), each among the other {protocol['gallery'] - 1:,}; "
            f"{protocol['overlap']:,} have byte-identical copies, which do not count as found"
        )
    return FOUND


def _merge(options: Namespace) -> int:
    count = index.merge(options.out, options.sources)
    if not options.quiet:
        sources = "1 index" if len(options.sources) == 1 else f"{len(options.sources)} indexes"
        tell(f"{counted(count, 'image')} of {sources} in {options.out}")
    return FOUND


def _export(options: Namespace) -> int:
    files = index.export(named.find(options, []), options.folder)
    for file in files:
        output.write_line(shown(str(file)))
    return FOUND


def _serve(options: Namespace) -> int:
    from jaxret.app.server.serve import serve

    given = options.place or named.given(options)
    serve(
        index.find_index((), given),
        host=options.host,
        port=options.port,
        browser=options.open,
        with_token=not options.no_token,
        quiet=options.quiet,
    )
    return FOUND


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "index": _index,
    "search": searching.search,
    "duplicates": searching.duplicates,
    "info": _info,
    "evaluate": _evaluate,
    "merge": _merge,
    "export": _export,
    "serve": _serve,
}
