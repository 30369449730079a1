"""What every experiment shares: flags from a dataclass, the work folder, progress, one-line errors.

JAX is imported inside functions, so that --help answers at once.
"""

import dataclasses
import io
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parent.parent


def flag(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    """A field of a configuration, with what --help says of it."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags that every training script has."""

    dataset: str = flag(
        "digits", "mnist, fashion_mnist, cifar10, cifar100, digits, or folder:PATH (a folder of "
        "images with one sub-folder per class)"
    )  # fmt: skip
    protocol: str = flag(
        "test", "which images train, are searched and are queries: test (the official split), "
        "validation (queries held out of the training images, for making choices), or one of the "
        "literature's: cifar10-full@1000, cifar10-full@all, cifar10-59k@all, cifar10-54k@all, "
        "cifar100-full@1000; metrics.json says of these by which score they are known"
    )  # fmt: skip
    data_dir: str = flag("", "where the raw files of the data sets lie [JAXRET_DATA_DIR]")
    image_size: int = flag(32, "side in pixels of images read from a folder")
    workdir: str = flag("", "where the run writes; required")
    seed: int = flag(0, "of the parameters, the order of images and all noise")
    epochs: int = flag(75, "passes over the training images")
    batch_size: int = flag(100, "images per step")
    learning_rate: float = flag(1e-3, "of the optimizer")
    resume: bool = flag(False, "go on from the work folder's newest checkpoint, if it has one")

    # Not part of what a run computes: a resumed run may differ in them.
    ELSEWHERE = ("workdir", "data_dir", "resume")

    def check(self) -> None:
        """Raise ValueError, naming flag, rule and value, where a flag makes no sense."""
        if not self.workdir:
            raise ValueError("--workdir is required: a folder for this run's results")
        for name in ("epochs", "batch_size", "image_size"):
            at_least(self, name, 1)
        at_least(self, "seed", 0)
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"--learning_rate must be above 0, got {self.learning_rate}")

    def identity(self) -> dict[str, Any]:
        """What must agree between a run and one that resumes it."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in self.ELSEWHERE}


def at_least(config: Config, name: str, least: int) -> None:
    """Check one flag against its least value."""
    if getattr(config, name) < least:
        raise ValueError(f"--{name} must be at least {least}, got {getattr(config, name)}")


def positive_integers(name: str, text: str) -> tuple[int, ...]:
    """A list such as 500,100."""
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts) or any(
        int(part) == 0 for part in parts
    ):
        raise ValueError(f"--{name} must be positive whole numbers such as 500,100, got {text!r}")
    return tuple(int(part) for part in parts)


def _define_flags(config_class: type[Config]) -> None:
    define = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }
    for field in dataclasses.fields(config_class):
        help, choices = field.metadata["help"], field.metadata["choices"]
        if choices:
            flags.DEFINE_enum(field.name, field.default, list(choices), help)
        else:
            define[field.type](field.name, field.default, help)
    for name in (field.name for field in dataclasses.fields(config_class)):
        flags.FLAGS[name].module = sys.argv[0]  # so that --help lists them
        flags.FLAGS.register_flag_by_module(sys.argv[0], flags.FLAGS[name])


def run(config_class: type[Config], main: Callable[[Config], None]) -> None:
    """Parse flags into a checked configuration and run; errors become one line and exit code 1.

    With JAXRET_DEBUG set in the environment, errors keep their traceback.
    """
    _define_flags(config_class)

    def guarded(argv: list[str]) -> None:
        if os.environ.get("JAXRET_DEBUG"):
            start(argv)
            return
        try:
            start(argv)
            sys.stdout.flush()
        except BrokenPipeError:  # as of --list | head: the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (ValueError, OSError, FloatingPointError) as error:
            first = str(error).strip().splitlines() or [type(error).__name__]
            sys.exit(f"error: {first[0]}")
        except KeyboardInterrupt:
            sys.exit("stopped; --resume goes on from the newest checkpoint")

    def start(argv: list[str]) -> None:
        if len(argv) > 1:
            raise ValueError(f"flags start with --, got {argv[1]!r}")
        values = {f.name: flags.FLAGS[f.name].value for f in dataclasses.fields(config_class)}
        if "data_dir" in values:
            values["data_dir"] = values["data_dir"] or os.environ.get("JAXRET_DATA_DIR", "")
        config = config_class(**values)
        config.check()
        logging.set_verbosity(logging.FATAL)  # Orbax logs what it also raises, with tracebacks
        _prepare_jax()
        warnings.showwarning = _one_line_warning
        sys.unraisablehook = _without_closed_loops
        main(config)

    app.run(guarded)


def _one_line_warning(message, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _without_closed_loops(unraisable: Any) -> None:
    """After a failed save TensorStore still reports to a closed event loop: that is no news."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _prepare_jax() -> None:
    """Keep compiled programs between runs: the second start takes a second instead of eight."""
    import jax

    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(home) / "jaxret" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write under a temporary name, then rename: a reader sees all or nothing."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_figure(path: Path, figure: Any) -> None:
    """A figure as PNG, whole."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


class Workdir:
    """A run's folder: args.flags, log.jsonl, checkpoints/, plots/, and metrics.json at the end."""

    def __init__(self, config: Config):
        from jaxret.checkpoint import Checkpoints

        self.path = Path(config.workdir)
        self.checkpoints = Checkpoints(self.path / "checkpoints", config.identity())
        self._log = self.path / "log.jsonl"
        if self.checkpoints.latest_step() is not None and not config.resume:
            raise ValueError(
                f"{self.path} already holds this run; add --resume to go on with it, or choose "
                "another --workdir"
            )
        (self.path / "plots").mkdir(parents=True, exist_ok=True)
        lines = [f"--{name}={value}" for name, value in dataclasses.asdict(config).items()]
        script = Path(sys.argv[0]).name
        write_whole(
            self.path / "args.flags",
            f"# Repeats this run: python experiments/{script} --flagfile=args.flags --workdir=NEW\n"
            + "\n".join(lines)
            + "\n",
        )

    def history(self, until_step: int) -> list[dict[str, Any]]:
        """The log's lines up to a step, and only those kept in the file: the rest is run again."""
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
        with open(self._log, "a") as file:
            file.write(json.dumps(line) + "\n")

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole."""
        write_whole(self.path / name, json.dumps(value, indent=1) + "\n")

    def plot(self, name: str, figure: Any) -> None:
        """Save a figure as plots/<name>.png, whole."""
        save_figure(self.path / "plots" / f"{name}.png", figure)


class Progress:
    """Images seen, images/s, time left and loss terms: a bar on a terminal, lines elsewhere."""

    def __init__(self, images_per_epoch: int, epochs: int, epochs_done: int = 0):
        self._per_epoch, self._epochs, self._first = images_per_epoch, epochs, epochs_done
        self._said = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=images_per_epoch * epochs,
                initial=images_per_epoch * epochs_done,
                unit="img",
                unit_scale=True,
                dynamic_ncols=True,
            )

    def __call__(self, epoch: int, terms: Mapping[str, float], images_per_second: float) -> None:
        """Tell that an epoch is done."""
        said = " ".join(f"{name} {value:.4g}" for name, value in terms.items())
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {epoch}/{self._epochs} {said}", refresh=False)
            self._bar.update(self._per_epoch)
            return
        left = self._epochs - epoch
        if time.monotonic() - self._said >= 5 or epoch == self._first + 1 or left == 0:
            self._said = time.monotonic()
            seconds = left * self._per_epoch / images_per_second
            print(
                f"epoch {epoch}/{self._epochs}  {said}  {images_per_second:,.0f} images/s  "
                f"{tqdm.format_interval(seconds)} left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()


def environment() -> dict[str, Any]:
    """Device, versions and commit, for a result to carry."""
    import importlib.metadata

    import jax

    device = jax.devices()[0]
    name = device.device_kind if device.platform != "cpu" else _processor()
    return {
        "device": name,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxret": importlib.metadata.version("jaxret"),
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"cpu ({names[0] if names else platform.machine()}, {os.cpu_count()} threads)"


def _commit() -> str | None:
    """The checkout's commit, marked where files differ from it; None outside a checkout."""
    try:
        command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def load_data(config: Config) -> tuple[Any, int]:
    """The protocol's images, and how many query images stand in the gallery by content."""
    from jaxret import data, train

    protocol = data.load_protocol(
        config.protocol, config.dataset, config.data_dir or None, config.image_size
    )
    train.steps_per_epoch(len(protocol.train.images), config.batch_size)  # refuse before writing
    return protocol, data.shared_images(protocol.gallery, protocol.query)


# What a line of the log holds beside the loss terms.
LOG_BOOKKEEPING = ("epoch", "steps", "images_per_second", "seconds")
# At most this much work is lost to a kill, and one epoch.
CHECKPOINT_SECONDS = float(os.environ.get("JAXRET_CHECKPOINT_SECONDS", "10"))


def train(
    workdir: Workdir,
    trainer: Any,
    hyper: dict[str, float],
    images: Any,
    config: Config,
    scan: bool = True,
    mesh: Any = None,
    partners: Any = None,
    watch: Callable[[Any], dict[str, float]] = lambda state: {},
) -> tuple[Any, list[dict[str, Any]]]:
    """Train in a work folder: resume, show progress, log, save. Gives the last state and the log.

    images is an ImageSet; scan, mesh and partners are train.fit's. watch gives further numbers of
    each epoch.
    """
    import jax

    from jaxret import train

    steps = train.steps_per_epoch(len(images.images), config.batch_size)
    state = trainer.init(jax.random.key(config.seed), hyper)
    history = []
    if workdir.checkpoints.latest_step() is not None:
        state = workdir.checkpoints.restore(state)
        history = workdir.history(until_step=int(state.step))
    else:
        workdir.history(until_step=0)

    progress = Progress(steps * config.batch_size, config.epochs, int(state.step) // steps)
    seconds = history[-1]["seconds"] if history else 0.0
    saved = time.monotonic()

    def on_epoch(state, info):
        nonlocal seconds, saved
        seconds += info.seconds
        terms = {name: float(value) for name, value in info.terms.items()} | watch(state)
        progress(info.epoch, terms, info.images_per_second)
        history.append(
            {
                "epoch": info.epoch,
                "steps": info.steps,
                **terms,
                "images_per_second": round(info.images_per_second, 1),
                "seconds": round(seconds, 3),
            }
        )
        workdir.log(history[-1])
        if info.epoch == config.epochs or time.monotonic() - saved > CHECKPOINT_SECONDS:
            workdir.checkpoints.save(info.steps, state)
            saved = time.monotonic()

    try:
        state = train.fit(
            trainer,
            state,
            hyper,
            images.images,
            images.labels,
            epochs=config.epochs,
            batch_size=config.batch_size,
            partners=partners,
            scan=scan,
            mesh=mesh,
            on_epoch=on_epoch,
        )
    finally:
        progress.close()
        workdir.checkpoints.close()
    return state, history
