"""A run's folder, one run at a time, and the progress that a run shows."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from options import Config, parse
from tqdm import tqdm

from jaxret.files import write_whole


def save_figure(path: Path, figure: Any) -> None:
    """Write a figure as PNG; a reader sees all of the file or none."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_whole(path, buffer.getvalue())


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; raise ValueError that names the holder if there is one.

    The lock is the kernel's, so it ends with the process, however that ends. The file goes away
    with it: who opens it next must see that the file it has locked is still the one in the folder.
    """
    import fcntl  # Linux and macOS

    path = folder / ".lock"
    while True:
        file = open(path, "a+")  # noqa: SIM115  # closed below; closing gives the lock back
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise ValueError(
                f"{folder} is in use by {holder}; wait for it, or choose another --workdir"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                break
        file.close()
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def summary_of_images(images: Any) -> str:
    """Return a line that differs between two sets of images: how many, of which class, a digest."""
    import numpy as np

    digest = hashlib.blake2b(digest_size=8)
    for array in (images.images, images.labels):
        digest.update(np.ascontiguousarray(array))
    counted = f"{len(images.images):,} images"
    if 0 < len(images.class_names) <= 20 and images.labels.ndim == 1:
        counts = np.bincount(images.labels, minlength=len(images.class_names))
        named = zip(images.class_names, counts, strict=False)
        counted += f" ({', '.join(f'{name} {count}' for name, count in named)})"
    return f"{counted}, digest {digest.hexdigest()}"


class Workdir:
    """A run's folder: args.flags, log.jsonl, checkpoints/, encoder/, metrics.json and plots/.

    Opening it refuses, by a ValueError, a folder that another process uses, one that holds a
    finished or a stopped run unless config.resume, and one of another configuration or other data.
    """

    def __init__(self, config: Config, images: Any, horizon: bool):
        """Open or create the folder.

        Args:
            config: the run's flags.
            images: the training images, an ImageSet.
            horizon: whether training depends on how many epochs the whole run has.
        """
        self.path = Path(config.workdir)
        self._log = self.path / "log.jsonl"
        self.path.mkdir(parents=True, exist_ok=True)
        self._held = contextlib.ExitStack()
        self._held.enter_context(locked(self.path))
        try:
            self._open(config, images, horizon)
        except BaseException:
            self._held.close()
            raise

    def _open(self, config: Config, images: Any, horizon: bool) -> None:
        from jaxret.checkpoint import Checkpoints

        earlier = self._earlier_flags(type(config))
        if earlier is not None and config.resume:
            self._check_epochs(earlier.epochs, config.epochs, horizon)
        identity = config.identity() | {"data": summary_of_images(images)}
        defaults = config.defaults() | {"data": identity["data"]}  # of runs before it was kept
        for values in (identity, defaults):
            del values["epochs"]  # checked above
        self.checkpoints = Checkpoints(self.path / "checkpoints", identity, defaults=defaults)
        if self.checkpoints.latest_step() is not None and not config.resume:
            raise ValueError(
                f"{self.path} already holds this run; add --resume to go on with it, or choose "
                "another --workdir"
            )
        flags = {name: v for name, v in dataclasses.asdict(config).items() if name != "resume"}
        script = Path(sys.argv[0]).name
        write_whole(
            self.path / "args.flags",
            f"# Repeats this run: python experiments/{script} --flagfile=args.flags --workdir=NEW\n"
            + "".join(f"--{name}={value}\n" for name, value in flags.items()),
        )

    def _earlier_flags(self, config_class: type[Config]) -> Config | None:
        file = self.path / "args.flags"
        if not file.exists() or not any((self.path / "checkpoints").glob("[0-9]*")):
            return None
        with contextlib.redirect_stderr(io.StringIO()):  # former names need no mention here
            return parse(config_class, [f"--flagfile={file}"])

    def _check_epochs(self, before: int, now: int, horizon: bool) -> None:
        if horizon and before != now:
            raise ValueError(
                f"{self.path} holds a run over {before} epochs, whose learning rate or other "
                f"settings follow a schedule over the whole run, so it cannot become one over "
                f"{now}; start anew, or start from its weights with --init_from={self.path}"
            )

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def history(self, until_step: int) -> list[dict[str, Any]]:
        """Return the log's lines up to a step and keep only those: the rest is run again."""
        if not self._log.exists():
            return []
        lines = []
        for text in self._log.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # torn by a kill; all that follows is run again
                break
            if line["steps"] <= until_step:
                lines.append(line)
        write_whole(self._log, "".join(json.dumps(line) + "\n" for line in lines))
        return lines

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line of JSON."""
        try:
            with open(self._log, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:  # a full disk does not say where
            raise OSError(error.errno, error.strerror, str(self._log)) from error

    def earlier_record(self) -> dict[str, Any]:
        """Return "train" of the metrics.json that an earlier run left here, {} without one."""
        try:
            return json.loads((self.path / "metrics.json").read_text())["train"]
        except (OSError, ValueError, KeyError):
            return {}

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file; a reader sees all of it or none."""
        write_whole(self.path / name, json.dumps(value, indent=1) + "\n")

    def plot(self, name: str, figure: Any) -> None:
        """Save a figure as plots/<name>.png."""
        save_figure(self.path / "plots" / f"{name}.png", figure)


class Progress:
    """Images seen, images/s, time left and loss terms: a bar on a terminal, lines elsewhere."""

    def __init__(
        self, images_per_epoch: int, epochs: int, epochs_done: int = 0, since: float | None = None
    ):
        """Begin to show; since is the time.time() at which the work began, None for now."""
        self._per_epoch, self._epochs, self._first = images_per_epoch, epochs, epochs_done
        self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=images_per_epoch * epochs,
                initial=images_per_epoch * epochs_done,
                unit="img",
                unit_scale=True,
                dynamic_ncols=True,
            )
            self._bar.start_t = self._bar.last_print_t = since or self._bar.start_t

    def __call__(self, epoch: int, terms: Mapping[str, float], images_per_second: float) -> None:
        """Show that an epoch is done."""
        values = " ".join(f"{name} {value:.4g}" for name, value in terms.items())
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {epoch}/{self._epochs} {values}", refresh=False)
            self._bar.update(self._per_epoch)
            return
        left = self._epochs - epoch
        if time.monotonic() - self._last_line >= 5 or epoch == self._first + 1 or left == 0:
            self._last_line = time.monotonic()
            seconds = left * self._per_epoch / images_per_second
            print(
                f"epoch {epoch}/{self._epochs}  {values}  {images_per_second:,.0f} images/s  "
                f"{tqdm.format_interval(seconds)} left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()
