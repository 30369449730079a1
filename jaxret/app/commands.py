"""The sub-commands: from options to an answer of `jaxret.index`, and from that to output."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxret import index
from jaxret.app import output
from jaxret.app.cli import FOUND, NOTHING, SKIPPED
from jaxret.app.output import number, shown, tell
from jaxret.app.progress import Progress
from jaxret.index.places import CATALOGUE

SHOWN = 10  # unreadable files that are named
LOOK = "similar in look, not in meaning"


def run(options: Namespace) -> int:
    """Run the command of parsed options and return the exit status."""
    return COMMANDS[options.command](options)


def _given(options: Namespace) -> str | None:
    return options.index or os.environ.get("JAXRET_INDEX") or None


def _place_to_write(options: Namespace) -> str | None:
    """Return where `index` writes: a JAXRET_INDEX of another folder is not taken over."""
    place = _given(options)
    if options.index or place is None or not (Path(place) / CATALOGUE).is_file():
        return place
    from jaxret.index.catalogue import Catalogue
    from jaxret.index.reader import root_of

    with Catalogue(Path(place)) as catalogue:
        root = root_of(Path(os.path.realpath(place)), catalogue.facts())
    if os.path.realpath(options.photos) != str(root):
        raise ValueError(
            f"JAXRET_INDEX is the index of {root}, not of {options.photos}; name an index by "
            "--index DIR"
        )
    return place


def _find(options: Namespace, near: list[str]) -> Path:
    files = [name for name in near if name != "-" and not _id_of(name)]
    try:
        return index.find_index(files, _given(options))
    except index.PhotoIndexError:
        absent = [name for name in files if not os.path.lexists(name)]
        if absent:  # a word, or a name with a mistake, is why no index was found
            from jaxret.index.query import regular_file

            regular_file(absent[0])
        raise


def _id_of(name: str) -> str | None:
    rest = name.removeprefix("id:")
    return rest if rest != name and rest.isdecimal() else None


def _query(name: str) -> str | bytes | int:
    """Return what a QUERY means: bytes of stdin, an id, a file."""
    if name == "-":
        return sys.stdin.buffer.read()
    number = _id_of(name)
    return name if number is None else int(number)


def _index(options: Namespace) -> int:
    progress = Progress(not options.quiet)
    try:
        summary = index.build(
            options.photos,
            _place_to_write(options),
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
    tell(
        f"{summary.images:,} images: {', '.join(parts + rest)}; {summary.seconds:.1f} s; "
        f"index {output.size(summary.index_bytes)}{look}. Next: jaxret search PHOTO"
    )


def _search(options: Namespace) -> int:
    def prepared():
        place = _find(options, [*options.queries, *options.negative])
        return place, _filters(options, place)

    find, writes = index.search, True
    if options.distributed:
        from jaxret.index import distributed

        find, writes = distributed.search, distributed.start() == 0
        _, (place, filters) = distributed.together(lambda: (None, prepared()))
    else:
        place, filters = prepared()
    found = find(
        [_query(name) for name in options.queries],
        place,
        negative=[_query(name) for name in options.negative],
        n=options.n,
        max_distance=options.max_distance,
        filters=filters,
    )
    images = found.results
    if not writes:
        return FOUND if images else NOTHING
    _show_found(options, place, found)
    if options.quiet:
        return FOUND if images else NOTHING
    if not images:
        narrowed = " that pass the filters" if filters else ""
        within = "" if options.max_distance is None else f" within {number(options.max_distance)}"
        tell(f"nothing found{within}: {found.searched:,} images{narrowed} were searched")
    stale = sum(image.state != "ok" for image in images)
    if stale:
        what = "result is" if stale == 1 else "results are"
        tell(
            f"{stale} {what} missing or changed since indexing; run: jaxret index "
            f"{shown(found.index['root'])}"
        )
    return FOUND if images else NOTHING


def _show_found(options: Namespace, place: Any, found: Any) -> None:
    """Write results in the form that the options name."""
    images = found.results
    if options.json:
        from jaxret.app.schema import search_document

        output.write_json(search_document(found, _image_json))
    elif options.html:
        from jaxret.app.sheet import write_sheet

        write_sheet(
            Path(options.html),
            place,
            _title(found.queries),
            [(f"{len(images)} results", images)],
            [
                (query.file, "query, to be unlike" if query.negative else "query")
                for query in found.queries
                if query.file is not None
            ],
        )
    elif options.paths or options.null:
        output.write_paths([image.file for image in images], b"\0" if options.null else b"\n")
    else:
        for image in images:
            output.write_line(number(image.distance), shown(image.file))


def _title(queries: list[Any]) -> str:
    like, unlike = (
        ", ".join(query.name for query in queries if query.negative is negative)
        for negative in (False, True)
    )
    return f"Similar to {like}" + (f", unlike {unlike}" if unlike else "")


def _filters(options: Namespace, place: Path) -> Any:
    from jaxret.index.query import folder_below

    root = _root(place) if options.folders else Path()
    return index.Filters(
        tuple(folder_below(root, folder) for folder in options.folders),
        tuple(getattr(options, "labels", ())),
        getattr(options, "newer", None),
        getattr(options, "older", None),
        getattr(options, "min_size", None),
    )


def _root(place: Path) -> Path:
    from jaxret.index.catalogue import Catalogue
    from jaxret.index.reader import root_of

    with Catalogue(place) as catalogue:
        return root_of(place, catalogue.facts())


def _keep(rules: list[str], place: Path) -> list[str]:
    """Return keep rules with their folders as paths below the root, as those of --in are."""
    from jaxret.index.groups import IN
    from jaxret.index.query import folder_below

    return [
        f"{IN}{folder_below(_root(place), rule.removeprefix(IN)) or '.'}"
        if rule.startswith(IN) and rule != IN
        else rule
        for rule in rules
    ]


def _image_json(image: Any) -> Any:
    from jaxret.app.schema import image_document

    return image_document(image, shown(image.file))


def _duplicates(options: Namespace) -> int:
    place = _find(options, list(options.folders))
    filters = _filters(options, place)
    found = index.duplicates(
        place,
        max_distance=options.max_distance,
        exact=options.exact,
        keep=_keep(options.keep, place),
        filters=filters,
        ignore=options.ignore,
    )
    members = [image for group in found.groups for image in group.members]
    if options.json:
        from jaxret.app.schema import duplicates_document

        output.write_json(duplicates_document(found, _image_json))
    elif options.html:
        from jaxret.app.sheet import write_sheet

        sections = [
            (f"kept ({group.reason}): {shown(group.keeper.file)}", [group.keeper, *group.members])
            for group in found.groups
        ]
        write_sheet(Path(options.html), place, f"{len(found.groups)} groups", sections)
    elif options.paths or options.null:
        output.write_paths([image.file for image in members], b"\0" if options.null else b"\n")
    else:
        _duplicates_lines(found.groups)
    if not options.quiet:
        unit = found.index["metric"] if "bits" not in found.index else f"of {found.index['bits']}"
        radius = "equal bytes" if found.radius is None else f"within {number(found.radius)} {unit}"
        chance = " (of unlike images at most one pair is so near)" if found.calibrated else ""
        groups = "group" if len(found.groups) == 1 else "groups"
        tell(
            f"{found.searched:,} images, {radius}{chance}: {len(found.groups)} {groups}, "
            f"{len(members)} images beside those that are kept"
        )
    return FOUND if found.groups else NOTHING


def _duplicates_lines(groups: list[Any]) -> None:
    for place, group in enumerate(groups):
        if place:
            output.write(b"\n")
        output.write_line("keep", shown(group.keeper.file), group.reason)
        for image in group.members:
            output.write_line(number(image.distance), shown(image.file))


def _info(options: Namespace) -> int:
    place = _find(options, list(options.files))
    if len(options.files) > 2:
        raise ValueError(f"info is of at most two files, got {len(options.files)}")
    if options.verify:
        return _verify(options, place)
    if not options.files:
        return _info_of_index(options, place)
    queries = [_query(name) for name in options.files]
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
        "skipped": f"{len(unreadable):,} files that cannot be read",
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
    document = index.evaluate(_find(options, []))
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
        tell(f"{count:,} images of {len(options.sources)} indexes in {options.out}")
    return FOUND


def _export(options: Namespace) -> int:
    files = index.export(_find(options, []), options.folder)
    for file in files:
        output.write_line(shown(str(file)))
    return FOUND


def _serve(options: Namespace) -> int:
    from jaxret.app.server.serve import serve

    given = options.place or _given(options)
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
    "search": _search,
    "duplicates": _duplicates,
    "info": _info,
    "evaluate": _evaluate,
    "merge": _merge,
    "export": _export,
    "serve": _serve,
}
