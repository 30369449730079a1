"""The command `jaxret`: arguments in, exit status out.

0 found or done; 1 nothing found; 2 wrong use or an error, in one line; 3 done, but files were
skipped or a removal was refused; 130 interrupted, what is done is kept.
"""

import argparse
import contextlib
import gc
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import jaxret

FOUND, NOTHING, ERROR, SKIPPED, INTERRUPTED = 0, 1, 2, 3, 130
SHORT = ("search", "info")  # commands that end at once
_EPILOG = """\
A QUERY is an image file; - for the bytes of one on standard input; or id:N, the indexed image with
this id (info and --json tell ids). jaxret searches by image, not by words, and opens no URL:
    curl -s URL | jaxret search -        wl-paste | jaxret search -

The index of a folder is PHOTOS/.jaxret. A command takes the index that --index DIR or the variable
JAXRET_INDEX names, else the nearest above the first QUERY or FILE, else above the current folder.
Nothing else is written, and no photo is ever changed or deleted. After photos came or went, run
jaxret index PHOTOS again: it reads only what is new or changed. HEIC photos need pip install
pillow-heif; RAW files and videos are not indexed.

Exit status: 0 found or done, 1 nothing found, 2 wrong use or error, 3 done, but files were skipped
or a removal was refused, 130 interrupted.
"""


class _Parser(argparse.ArgumentParser):
    """Wrong use is told in one line."""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Refuse an empty value, as of a shell variable that is not set: it would name a default.

        `--exclude=` is how patterns are forgotten.
        """
        if not arg_string and action.dest not in ("command", "exclude"):
            raise argparse.ArgumentError(action, "is empty, a value is expected")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}; see {self.prog} --help\n")
        raise SystemExit(ERROR)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; None: this process's arguments.

    A short command that is this process ends it at once, because to take the interpreter and JAX
    apart would take half a second.
    """
    _open_closed_streams()
    words = sys.argv[1:] if arguments is None else list(arguments)
    is_short = words[:1] and words[0] in SHORT and "--distributed" not in words
    if is_short:
        gc.disable()  # collecting what imports leave would take a tenth of their time
    try:
        status = _run(words)
    finally:
        gc.enable()
    if is_short and arguments is None:
        with contextlib.suppress(OSError):  # of --help, to who has seen enough
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _open_closed_streams() -> None:
    """Let a stream that the caller closed (`>&-`) be empty, or lead nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (as long as the process)


def _run(arguments: Sequence[str]) -> int:
    debug = bool(os.environ.get("JAXRET_DEBUG"))
    try:
        options = _parser().parse_args(arguments)
        _prepare(debug)
        status = importlib.import_module("jaxret.app.commands").run(options)
        sys.stdout.flush()
        return status
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ERROR
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FOUND
    except KeyboardInterrupt:
        sys.stderr.write("\njaxret: interrupted; what is done is kept\n")
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return _told(error)


def _told(error: Exception) -> int:
    from jaxret.app.output import tell

    text = str(error)
    if isinstance(error, OSError) and error.strerror:  # without its number
        text = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    text = " ".join(text.split()) or type(error).__name__
    expected = isinstance(error, (ValueError, OSError))
    tell(f"jaxret: {text}" if expected else f"jaxret: {type(error).__name__}: {text} (a defect; "
         "JAXRET_DEBUG=1 shows where)")  # fmt: skip
    return ERROR


def _prepare(debug: bool) -> None:
    """Keep compiled programs in the user's cache folder, and libraries silent."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": os.path.join(cache, "jaxret", "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if not debug and not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxret",
        description="Find similar images in a folder of your own, offline.",
        epilog=f"jaxret COMMAND --help lists the options of a command.\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"jaxret {jaxret.__version__}")
    parser.add_argument(
        "--completion",
        metavar="SHELL",
        action=_Completion,
        help="print a completion script: bash or fish",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )
    for add in (_index, _search, _duplicates, _info, _evaluate, _merge, _export, _serve):
        add(commands)
    return parser


def _add(commands: Any, name: str, text: str, *, index: bool = True) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=_EPILOG if name == "search" else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if index:
        makes = "keep the index in this folder, not in PHOTOS/.jaxret"
        uses = "use this index; default: the nearest, see jaxret --help"
        parser.add_argument("--index", metavar="DIR", help=makes if name == "index" else uses)
    parser.add_argument("-q", "--quiet", action="store_true", help="print results and errors only")
    return parser


def _index(commands: Any) -> None:
    parser = _add(commands, "index", "index a folder of photos, or bring its index up to date")
    add = parser.add_argument
    add("photos", metavar="PHOTOS", help="the folder; nothing but its .jaxret is written")
    add("--model", metavar="MODEL", help="what makes the codes of a new index: photo (default; by "
        "content), look (layout and colour, needs no weights), labels (learns from sub-folders or "
        "--labels), or an encoder folder that a training script left")  # fmt: skip
    add("--bits", type=_whole, metavar="N", help="bits per code (photo: 256, look: 64)")
    add("--dims", type=_whole, metavar="N", help="keep vectors of N real numbers instead of bits")
    add("--labels", metavar="FILE.csv", help="take labels from this file (columns file,label), "
        "not from sub-folders")  # fmt: skip
    add("--vectors", metavar="FILE.npy", help="index these vectors of another model, floats [n d]; "
        "FILE.txt names a path for each row, without it rows follow the sorted paths")  # fmt: skip
    add("--exclude", metavar="GLOB", action="append", help="leave out names or paths that match; "
        "may be repeated; kept for later runs, --exclude= forgets them")  # fmt: skip
    add("--hidden", action="store_true", default=None, help="index names that begin with a dot as "
        "well; kept for later runs")  # fmt: skip
    add("--recheck", action="store_true", help="read every file, even of unchanged size and date")
    add("--rebuild", action="store_true", help="make a new model and all codes anew; ids stay")
    add("--forget-missing", action="store_true", help="remove images whose files are gone, even "
        "if they are most of the index (as when a disk is not mounted)")  # fmt: skip
    add("--shard", type=_shard, metavar="I/N", help="index only the I-th of N shares of PHOTOS, "
        "for merge; needs an encoder folder, and an --index for each")  # fmt: skip
    add("--json", action="store_true", help="print the summary as JSON")


def _search(commands: Any) -> None:
    parser = _add(commands, "search", "find the images that are most similar to a QUERY")
    add = parser.add_argument
    add("queries", metavar="QUERY", nargs="+", help="an image file, - or id:N; of several, "
        "results are near to all: distances are added")  # fmt: skip
    add("--not", dest="negative", metavar="QUERY", action="append", default=[],
        help="an image to be unlike; may be repeated")  # fmt: skip
    add("-n", type=_whole, default=20, metavar="N", help="print N results at most (20)")
    add("--max-distance", type=float, metavar="D", help="only results within this distance: bits "
        "that differ, or squared Euclidean distance of vectors")  # fmt: skip
    add("--in", dest="folders", metavar="FOLDER", action="append", default=[],
        help="only images below this folder; may be repeated")  # fmt: skip
    add("--label", dest="labels", metavar="NAME", action="append", default=[],
        help="only images of this label: a first sub-folder, or of --labels")  # fmt: skip
    add("--newer", type=_date, metavar="DATE", help="only images taken at this date or later, such "
        "as 2024-05-31")  # fmt: skip
    add("--older", type=_date, metavar="DATE", help="only images taken before this date")
    add("--min-size", type=_size, metavar="WxH", help="only images of at least this size in pixels")
    add("--distributed", action="store_true", help="search as one of the processes of a job "
        "(JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID): each searches its share of "
        "the index, or an index of its own; process 0 answers")  # fmt: skip
    _outputs(parser)


def _duplicates(commands: Any) -> None:
    parser = _add(commands, "duplicates", "group images that are nearly the same; deletes nothing")
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--max-distance", type=float, metavar="D", help="group what is within this "
                       "distance of the image to keep; default: the largest at which at most one "
                       "pair of unlike images is expected")  # fmt: skip
    which.add_argument("--exact", action="store_true", help="group files of equal bytes only")
    add("--keep", metavar="RULE", action="append", default=[], help="which image of a group to "
        "keep: largest (default), oldest, newest, shortest (path) or in:FOLDER; of several rules "
        "the next one decides between equals")  # fmt: skip
    add("--in", dest="folders", metavar="FOLDER", action="append", default=[],
        help="only images below this folder; may be repeated")  # fmt: skip
    add("--ignore", metavar="FILE", help="images that are no duplicates of each other: their "
        "digests (see --json) on a line")  # fmt: skip
    _outputs(parser)


def _outputs(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--paths", action="store_true", help="print paths only, one a line")
    which.add_argument(
        "-0",
        "--null",
        action="store_true",
        help="print paths only, each ended by NUL, for xargs -0",
    )
    which.add_argument("--json", action="store_true", help="print one JSON document")
    which.add_argument("--html", metavar="FILE", help="write a page of thumbnails into one file")


def _info(commands: Any) -> None:
    parser = _add(commands, "info", "describe the index or an image, or tell how far two are apart")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="one or two image files or id:N; none: the index"
    )
    parser.add_argument("--verify", action="store_true", help="check every byte of the index")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _evaluate(commands: Any) -> None:
    parser = _add(
        commands, "evaluate", "score the index: search each labelled image among the others"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _merge(commands: Any) -> None:
    parser = _add(commands, "merge", "join the indexes of shards into a new one", index=False)
    parser.add_argument("out", metavar="OUT", help="the new index")
    parser.add_argument("sources", metavar="IN", nargs="+", help="indexes that one encoder made")


def _export(commands: Any) -> None:
    parser = _add(commands, "export", "write codes, paths and labels for other programs")
    parser.add_argument("folder", metavar="DIR", help="a new folder: .npy and CSV, Parquet where "
                        "pyarrow is installed, a FAISS index where faiss is")  # fmt: skip


def _serve(commands: Any) -> None:
    parser = _add(
        commands, "serve", "serve a page for the browser: drop a picture, see its neighbors"
    )
    add = parser.add_argument
    add("place", metavar="INDEX", nargs="?", help="the index, or the folder of photos that "
        "holds it; default: the nearest above the current folder")  # fmt: skip
    add(
        "--port",
        type=_port,
        default=8765,
        metavar="N",
        help="port of the page (8765); 0: a free one",
    )
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="listen at this address of this "
        "machine; at any but 127.0.0.1 other machines can reach the page")  # fmt: skip
    add("--open", action="store_true", help="open the page in the browser")
    add("--no-token", action="store_true", help="ask for no token: every user of this "
        "machine can then see the photos")  # fmt: skip


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port from 0 to 65535 is expected, got {text!r}")
    return int(text)


def _whole(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is expected, got {text!r}")
    return value


def _date(text: str) -> str:
    from jaxret.index.reader import checked_date

    try:
        return checked_date(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})[xX×](\d{1,9})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"a size such as 640x480 is expected, got {text!r}")
    return int(found[1]), int(found[2])


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"I/N with 1 <= I <= N is expected, got {text!r}")
    return int(found[1]), int(found[2])


class _Completion(argparse.Action):
    """Prints what a shell completes."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        words = {
            name: " ".join(o for action in sub._actions for o in action.option_strings)
            for name, sub in commands.choices.items()
        }
        if values == "bash":
            cases = "\n".join(f"    {name}) words='{text}';;" for name, text in words.items())
            sys.stdout.write(
                "_jaxret() {\n  local words=\n  case ${COMP_WORDS[1]} in\n"
                f"{cases}\n    *) words='{' '.join(words)} --help --version';;\n  esac\n"
                '  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))\n}\n'
                "complete -o default -F _jaxret jaxret\n"
            )
        elif values == "fish":
            for name in words:
                sys.stdout.write(f"complete -c jaxret -n __fish_use_subcommand -a {name}\n")
            for name, text in words.items():
                for word in (w for w in text.split() if w.startswith("--")):
                    seen = f"__fish_seen_subcommand_from {name}"
                    sys.stdout.write(f"complete -c jaxret -n '{seen}' -l {word[2:]}\n")
        else:
            parser.error(f"--completion must be bash or fish, got {values!r}")
        parser.exit(FOUND)


if __name__ == "__main__":
    sys.exit(main())
