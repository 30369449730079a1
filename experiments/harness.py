"""What every experiment shares: the command line, one-line errors, JAX's settings, facts of a run.

JAX is imported inside functions, so that --help answers at once.
"""

import ctypes
import dataclasses
import dis
import functools
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging
from options import (
    Config,
    asks_for_help,
    at_least,
    check_settings,
    flag,
    help_text,
    parse,
    positive_integers,
)
from workdir import Progress, Workdir, save_figure

import jaxret
from jaxret.files import write_whole

__all__ = [
    "REPOSITORY",
    "Config",
    "Progress",
    "Workdir",
    "at_least",
    "check_settings",
    "environment",
    "flag",
    "load_data",
    "load_images",
    "positive_integers",
    "run",
    "save_figure",
    "with_batches_of",
    "write_whole",
]

REPOSITORY = Path(__file__).resolve().parent.parent


def run(
    config_class: type, main: Callable[[Any], None], arguments: list[str] | None = None
) -> None:
    """Parse flags into a checked configuration and run main with it.

    -h and --help print the flags by topic. An error that a user can cause becomes one line and exit
    code 1; any other keeps its traceback, and with JAXRET_DEBUG in the environment all do.

    Args:
        config_class: a dataclass of options.flag fields with a method check().
        main: what to run.
        arguments: the command line without the script's name; None: this process's.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if asks_for_help(arguments):
        print(help_text(config_class, sys.modules[config_class.__module__].__doc__), end="")
        return
    config = None
    try:
        config = parse(config_class, arguments)
        _prepare_process(config)
        config.check()
        main(config)
        sys.stdout.flush()
    except BrokenPipeError:  # as of --list | head: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        hint = "; --resume continues from the newest checkpoint" if _resumable(config) else ""
        print(f"stopped{hint}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        line = one_line(error)
        if line is None or os.environ.get("JAXRET_DEBUG"):
            raise
        sys.exit(f"error: {line}")


def _resumable(config: Any) -> bool:
    """Return whether a run has left a checkpoint."""
    return hasattr(config, "resume") and any(Path(config.workdir).glob("checkpoints/[0-9]*"))


def one_line(error: Exception) -> str | None:
    """Return the line that tells a user's error, None for a bug, whose traceback is needed.

    A ValueError is a user's if a raise statement of jaxret or of an experiment raised it: one from
    inside NumPy or JAX is a bug of ours, or of a user's own model.
    """
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, OSError):
        named = error.filename is not None and error.strerror
        return f"{error.filename}: {error.strerror}" if named else text
    if isinstance(error, ValueError | FloatingPointError) and _is_rule(error):
        return text
    return None


def _is_rule(error: Exception) -> bool:
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    file = Path(code.co_filename).resolve()
    ours = (Path(jaxret.__file__).resolve().parent, Path(__file__).resolve().parent)
    raised = dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    return raised and any(file.is_relative_to(folder) for folder in ours)


def _prepare_process(config: Any) -> None:
    """Set what a script wants of memory, of JAX, of warnings and of loggers.

    Compiled programs are kept between runs: the second start takes a second instead of eight.
    """
    if not (isinstance(config, Config) and config.extractor()):
        _keep_freed_memory()
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "jaxret" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_traceback_filtering", "off")  # one_line reads where an error was raised
    logging.set_verbosity(logging.FATAL)  # Orbax logs what it also raises, with tracebacks
    warnings.showwarning = _one_line_warning
    sys.unraisablehook = _without_closed_loops
    if os.environ.get("JAX_PLATFORMS"):
        _check_platform(os.environ["JAX_PLATFORMS"])


def _keep_freed_memory() -> None:
    """Have glibc keep the memory that a step frees, for the next one.

    It gives blocks of more than 32 MB back to the system, which fills each page with zeros again
    when the next step writes there. On 2 cores a step of CIFAR4's published classifier takes 1.13
    s, and 1.40 s where memory is given back. A process keeps as much as it once needed. Features of
    a pretrained network, which small programs on several threads compute, would take a tenth
    longer: where a script computes them, nothing is kept.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    arenas, mapped_blocks, trim_threshold = -8, -4, -1  # malloc.h: M_ARENA_MAX and others
    glibc = ctypes.CDLL(None)
    # One arena for all threads, because only the first can grow to any size.
    for option, value in ((arenas, 1), (mapped_blocks, 0), (trim_threshold, -1)):
        glibc.mallopt(option, value)


def _check_platform(name: str) -> None:
    """Raise ValueError if JAX cannot start the platform that the environment asks for."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # of JAX 0.10, an assertion without words
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise ValueError(
            f"JAX cannot start the platform of JAX_PLATFORMS={name}{reason}; unset it, or set it "
            "to cpu"
        ) from error


def _one_line_warning(message, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _without_closed_loops(unraisable: Any) -> None:
    """After a failed save TensorStore still reports to a closed event loop: that is no news."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def environment() -> dict[str, Any]:
    """Return device, versions and commit, for a result to carry."""
    import jax

    device = jax.devices()[0]
    name = device.device_kind if device.platform != "cpu" else _processor()
    return {
        "device": name,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxret": jaxret.__version__,
        "commit": _commit(),
    }


def _processor() -> str:
    from jaxret.search import processor

    affinity = getattr(os, "sched_getaffinity", None)  # a container may have few of the host's
    threads = len(affinity(0)) if affinity else os.cpu_count()
    return f"cpu ({processor.name() or platform.machine()}, {threads} threads)"


def _commit() -> str | None:
    """The checkout's commit, marked if files differ from it; None outside a checkout."""
    if not (REPOSITORY / ".git").exists():  # a folder above may be a checkout of something else
        return None
    try:
        command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


OTHERS = "others"  # the protocol of scripts whose scores leave a query itself out
LANDMARKS = "landmarks"  # the split of the landmarks report, of scripts that validate as they train


def load_data(config: Config) -> tuple[Any, int]:
    """Return what a run hashes, and how many query images are in the gallery: see load_images.

    Where the flags name features, their vectors stand in the place of the images.
    """
    protocol, overlap = load_images(config)
    if not config.extractor():
        return protocol, overlap
    import vectors

    if config.mirrors():
        protocol = protocol._replace(train=vectors.with_mirrored(protocol.train))
    return vectors.of_protocol(protocol, config.extractor(), config.sees_both()), overlap


def load_images(config: Config) -> tuple[Any, int]:
    """Return the protocol's images, and how many query images are in the gallery by content.

    Raises ValueError for what would fail only after training: too few images for a batch, or more
    queries in the gallery than the protocol or --allowed_overlap say.
    """
    from jaxret import data, train

    dataset = _place(config)
    if config.protocol == OTHERS and config.FINDS_OTHERS:
        return _others(config, dataset), 0
    if config.protocol == LANDMARKS and config.VALIDATES:
        protocol = _landmarks(config, dataset)
    else:
        protocol = data.load_protocol(
            config.protocol,
            dataset,
            config.data_dir or None,
            config.image_size,
            labels=config.labels or None,
        )
    batch_size = with_batches_of(config, protocol.train).batch_size
    train.steps_per_epoch(len(protocol.train.images), batch_size)
    overlap = data.shared_images(protocol.gallery, protocol.query)
    allowed = max(protocol.known_overlap, config.allowed_overlap)
    if overlap > allowed:
        raise ValueError(
            f"{protocol.name}: {overlap} of {len(protocol.query.images)} query images are also in "
            "the gallery, where each finds itself; remove the copies, or accept them with "
            f"--allowed_overlap={overlap}"
        )
    return protocol._replace(known_overlap=allowed), overlap


def with_batches_of(config: Config, images: Any) -> Config:
    """Return a configuration whose batch is not the default where an ImageSet has fewer images.

    The batch is all of the images then. A size that is not the default stays as it was given.
    """
    if config.batch_size != config.defaults()["batch_size"]:
        return config
    if len(images.images) >= config.batch_size:
        return config
    return dataclasses.replace(config, batch_size=len(images.images))


def _place(config: Config) -> str:
    """Return a data set's name; photos:NAME is the folder photos/NAME below the data folder."""
    name = config.dataset.removeprefix("photos:")
    if name == config.dataset:
        return name
    root = config.data_dir or os.environ.get("JAXRET_DATA_DIR") or "."
    return f"folder:{Path(root) / 'photos' / name}"


def _others(config: Config, dataset: str) -> Any:
    """Return all images as training images, gallery and queries: each is sought among others."""
    from jaxret import data

    images = _everything(config, dataset)
    title = dataset.rpartition("/")[2]
    return data.Protocol(f"{title}-{OTHERS}", images, images, images, len(images.labels))


def _landmarks(config: Config, dataset: str) -> Any:
    """Return the parts of the landmarks report; the gallery ends with what validates."""
    import numpy as np

    from jaxret import data

    images = _everything(config, dataset)
    if images.names:  # in an order that does not depend on how they were read
        images = data.take(images, np.argsort(images.names))
    resized = data.resize_images(images.images, config.image_size)
    notes = ("split: that of the landmarks report; the gallery ends with what validates",)
    images = images._replace(images=resized, notes=notes)
    train, validation, test = (np.flatnonzero(part) for part in data.split_landmarks(images.labels))
    rows = train, np.concatenate([train, validation]), test
    title = dataset.rpartition("/")[2]
    return data.Protocol(f"{title}-{LANDMARKS}", *(data.take(images, part) for part in rows), 0)


def _everything(config: Config, dataset: str) -> Any:
    """Return the images of both splits."""
    import numpy as np

    from jaxret import data

    read = functools.partial(data.load, dataset, image_size=config.image_size)
    first, last = (read(split, data_dir=config.data_dir or None) for split in ("train", "test"))
    joined = {
        name: np.concatenate([getattr(part, name) for part in (first, last)])
        for name in ("images", "labels")
    }
    return first._replace(**joined, names=(*(first.names or ()), *(last.names or ())) or None)


if __name__ == "__main__":
    print(__doc__)
