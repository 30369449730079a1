"""The commands that look for images: search and duplicates, in every form of output."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from jaxret import index
from jaxret.app import named, output
from jaxret.app.cli import FOUND, NOTHING
from jaxret.app.output import counted, number, shown, tell


def search(options: Namespace) -> int:
    """Find the images that are nearest to the queries; return the exit status."""

    def prepared():
        named.check_one_stdin([*options.queries, *options.negative])
        place = named.find(options, [*options.queries, *options.negative])
        return place, named.filters(options, place)

    find, writes = index.search, True
    if options.distributed:
        from jaxret.index import distributed

        find, writes = distributed.search, distributed.start() == 0
        _, (place, filters) = distributed.in_every_process(lambda: (None, prepared()))
    else:
        place, filters = prepared()
    found = find(
        [named.query(name) for name in options.queries],
        place,
        negative=[named.query(name) for name in options.negative],
        n=options.n,
        max_distance=options.max_distance,
        filters=filters,
    )
    if writes:
        _show_found(options, place, found)
        if not options.quiet:
            _tell_search(options, place, filters, found)
    return FOUND if found.results else NOTHING


def _tell_search(options: Namespace, place: Path, filters: Any, found: Any) -> None:
    """Say why nothing was found, and which results are no longer what was indexed."""
    images = found.results
    # In a job of several processes the folder may be in the index of another one.
    empty = not options.distributed and _tell_empty_folders(options, place, filters)
    if not images and not empty:
        narrowed = " that pass the filters" if filters else ""
        within = "" if options.max_distance is None else f" within {number(options.max_distance)}"
        were = "was" if found.searched == 1 else "were"
        searched = f"{counted(found.searched, 'image')}{narrowed} {were} searched"
        tell(f"nothing found{within}: {searched}")
    stale = sum(image.state != "ok" for image in images)
    if stale:
        what = "result is" if stale == 1 else "results are"
        tell(
            f"{stale} {what} missing or changed since indexing; run: jaxret index "
            f"{shown(found.index['root'])}"
        )


def _tell_empty_folders(options: Namespace, place: Path, filters: Any) -> bool:
    """Say which folders of --in hold no indexed image; return whether none of them holds one."""
    empty = named.folders_without_images(options, place, filters)
    for folder in empty:
        tell(f"--in {folder}: no indexed image lies under it")
    return bool(empty) and len(empty) == len(options.folders)


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


def _image_json(image: Any) -> Any:
    from jaxret.app.schema import image_document

    return image_document(image, shown(image.file))


def duplicates(options: Namespace) -> int:
    """Group images that are nearly the same; return the exit status."""
    near = [folder for folder in options.folders if os.path.lexists(folder)]
    place = named.find(options, near)
    filters = named.filters(options, place)
    found = index.duplicates(
        place,
        max_distance=options.max_distance,
        exact=options.exact,
        keep=named.keep(options.keep, place),
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
        _tell_empty_folders(options, place, filters)
        unit = found.index["metric"] if "bits" not in found.index else f"of {found.index['bits']}"
        radius = "equal bytes" if found.radius is None else f"within {number(found.radius)} {unit}"
        chance = " (of unlike images at most one pair is so near)" if found.calibrated else ""
        tell(
            f"{counted(found.searched, 'image')}, {radius}{chance}: "
            f"{counted(len(found.groups), 'group')}, "
            f"{counted(len(members), 'image')} beside those that are kept"
        )
    return FOUND if found.groups else NOTHING


def _duplicates_lines(groups: list[Any]) -> None:
    for place, group in enumerate(groups):
        if place:
            output.write(b"\n")
        output.write_line("keep", shown(group.keeper.file), group.reason)
        for image in group.members:
            output.write_line(number(image.distance), shown(image.file))
