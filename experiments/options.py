"""Flags from a dataclass: topics, help, former names, paths, parsing, and rules on values.

Only absl is imported, so that --help answers at once.
"""

import dataclasses
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from absl import flags

TOPICS = ("data", "model", "training", "augmentation", "codes and scores", "run")
HELP = {"-h", "-help", "--help", "--helpshort", "--helpfull"}


def flag(default: Any, help: str, choices: tuple[str, ...] = (), topic: str = "run") -> Any:
    """Return a dataclass field that is a flag.

    Args:
        default: the flag's value when it is not given; its type is the flag's.
        help: one sentence for --help.
        choices: the values that a string may have; none: any.
        topic: one of TOPICS, under which --help lists the flag.
    """
    if topic not in TOPICS:
        raise ValueError(f"topic must be one of {', '.join(TOPICS)}, got {topic!r}")
    metadata = {"help": help, "choices": choices, "topic": topic}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags that every training script has."""

    dataset: str = flag(
        "digits", "Read mnist, fashion_mnist, cifar10, cifar100, digits, or folder:PATH, a folder "
        "of images with one sub-folder per class.", topic="data",
    )  # fmt: skip
    protocol: str = flag(
        "test", "Choose which images train, which are the gallery and which are queries: test (the "
        "official split), validation (queries are held out of the training images; make choices by "
        "this one), or a protocol of the literature: cifar10-full@1000, cifar10-full@all, "
        "cifar10-59k@all, cifar10-54k@all, cifar100-full@1000, mnist-full@1000, mnist-69k@all.",
        topic="data",
    )  # fmt: skip
    data_dir: str = flag(
        "", "Look for the raw files of the data sets in this folder; the default is the "
        "environment variable JAXRET_DATA_DIR.", topic="data",
    )  # fmt: skip
    labels: str = flag(
        "", "Take the labels of a folder's images from this CSV file (file,label), not from its "
        "sub-folders.", topic="data",
    )  # fmt: skip
    image_size: int = flag(
        32, "Resize the images of a folder to this many pixels a side.", topic="data"
    )
    allowed_overlap: int = flag(
        0, "Accept up to this many query images of a folder that are also in the gallery.",
        topic="data",
    )  # fmt: skip
    epochs: int = flag(75, "Pass this many times over the training images.", topic="training")
    batch_size: int = flag(100, "Use this many images per step.", topic="training")
    learning_rate: float = flag(1e-3, "Use this learning rate of the optimizer.", topic="training")
    workdir: str = flag("", "Write the run's results into this folder (required).")
    seed: int = flag(
        0, "Draw the first parameters, the order of images and all noise from this seed."
    )
    resume: bool = flag(
        False, "Continue from the newest checkpoint of the work folder, if it has one."
    )
    init_from: str = flag(
        "", "Start from the weights of this finished run (its work folder) or kept encoder."
    )
    baselines: bool = flag(
        True, "Score codes that need no learning (raw pixels; ITQ at the same bits, or PCA at the "
        "same length) beside the run's own.",
    )  # fmt: skip

    # Flags that are only numbers of the optimisation: vmapped runs may differ in them.
    SCALARS: ClassVar[tuple[str, ...]] = ("learning_rate",)
    # Flags that concern only the codes of a trained model.
    EVALUATION: ClassVar[tuple[str, ...]] = ()
    # Flags that are not part of what a run computes: a resumed run may differ in them.
    ELSEWHERE: ClassVar[tuple[str, ...]] = ("workdir", "data_dir", "resume", "baselines")
    # Flags that are newer than kept results, with the value at which those are still right.
    ADDED: ClassVar[dict[str, Any]] = {"labels": "", "init_from": "", "allowed_overlap": 0}
    # Whether scores leave a query itself out, so that --protocol=others makes sense.
    FINDS_OTHERS: ClassVar[bool] = False
    # Whether a part of the images chooses the epoch, so that --protocol=landmarks makes sense.
    VALIDATES: ClassVar[bool] = False
    # Former names, which flagfiles may hold.
    RENAMED: ClassVar[dict[str, str]] = {}

    def check(self) -> None:
        """Raise ValueError, with the flag, the rule and the value, if a flag breaks a rule."""
        if not self.workdir:
            raise ValueError("--workdir is required: a folder for this run's results")
        for name in ("epochs", "batch_size", "image_size"):
            at_least(self, name, 1)
        for name in ("seed", "allowed_overlap"):
            at_least(self, name, 0)
        if self.seed >= 2**32:
            raise ValueError(f"--seed must be below 2^32 = 4294967296, got {self.seed}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"--learning_rate must be above 0, got {self.learning_rate}")
        if self.labels and not self.dataset.startswith("folder:"):
            raise ValueError(f"--labels is for --dataset=folder:PATH, got {self.dataset!r}")

    def extractor(self) -> str:
        """Return which of jaxret.features.FEATURES a run hashes, "" for the images themselves."""
        return ""

    def mirrors(self) -> bool:
        """Return whether features of mirrored training images train too."""
        return False

    def sees_both(self) -> bool:
        """Return whether gallery and queries are features of images and of their mirror images."""
        return False

    def identity(self) -> dict[str, Any]:
        """Return what a run computes: the flags that a kept result or a checkpoint depends on."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in self.ELSEWHERE
        }

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return every flag's default."""
        return {field.name: field.default for field in dataclasses.fields(cls)}

    @classmethod
    def from_kept(cls, values: dict[str, Any], **changes: Any) -> "Config":
        """Return the configuration that a metrics.json holds, former flag names included."""
        known = cls.defaults()
        values = {cls.RENAMED.get(name, name): value for name, value in values.items()}
        return cls(**{name: v for name, v in values.items() if name in known} | changes)


def at_least(config: Any, name: str, least: float) -> None:
    """Raise ValueError if a flag is below its least value, not finite or not a number."""
    if not least <= getattr(config, name) < float("inf"):
        raise ValueError(f"--{name} must be at least {least}, got {getattr(config, name)}")


def positive_integers(name: str, text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as 500,100; raise ValueError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"--{name} must be positive whole numbers such as 500,100, got {text!r}")
    return tuple(map(int, parts))


def check_settings(check: Callable[[], object]) -> None:
    """Run the check of a hasher's settings; its ValueErrors name flags, as the two share names."""
    try:
        check()
    except ValueError as error:
        raise ValueError(f"--{error}") from error


def parse(config_class: type, arguments: Sequence[str]) -> Any:
    """Return the configuration that the command line and its flagfiles give, not yet checked.

    A former flag name is accepted, with one line on standard error that names the present one. A ~
    at the start of a path becomes the home folder.

    Raises:
        ValueError: for an unknown flag, a value of a wrong type, or an argument that is no flag.
    """
    values = flags.FlagValues()
    _define(config_class, values)
    try:
        _, *rest = values([sys.argv[0], *arguments])
    except flags.Error as error:
        raise ValueError(str(error).splitlines()[0].removeprefix("ERROR:: ")) from error
    if rest:
        raise ValueError(f"flags start with --, got {rest[0]!r}")
    for former, name in getattr(config_class, "RENAMED", {}).items():
        if values[former].present:
            print(f"--{former} is now --{name}", file=sys.stderr)
    given = {f.name: _expanded(values[f.name].value) for f in dataclasses.fields(config_class)}
    if "data_dir" in given:
        given["data_dir"] = given["data_dir"] or os.environ.get("JAXRET_DATA_DIR", "")
    return config_class(**given)


def _define(config_class: type, values: flags.FlagValues) -> None:
    define = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }
    for field in dataclasses.fields(config_class):
        help, choices = field.metadata["help"], field.metadata["choices"]
        if choices:
            flags.DEFINE_enum(field.name, field.default, list(choices), help, flag_values=values)
        else:
            define[field.type](field.name, field.default, help, flag_values=values)
    for former, name in getattr(config_class, "RENAMED", {}).items():
        flags.DEFINE_alias(former, name, flag_values=values)


def _expanded(value: Any) -> Any:
    """Replace each ~ that begins a path, such as in folder:~/photos or ~/a,~/b."""
    if not isinstance(value, str):
        return value
    return re.sub(r"(?:^|(?<=[,:]))~(?=/|$)", lambda _: os.path.expanduser("~"), value)


def asks_for_help(arguments: Iterable[str]) -> bool:
    """Return whether a command line asks for help."""
    return not HELP.isdisjoint(arguments)


def help_text(config_class: type, description: str | None) -> str:
    """Return what --help prints: what the script does, then its flags by topic."""
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    lines = [(description or "").strip(), ""]
    for topic in TOPICS:
        fields = [f for f in dataclasses.fields(config_class) if f.metadata["topic"] == topic]
        if fields:
            lines += [f"{topic}:", *(line for field in fields for line in _help_of(field, width))]
            lines.append("")
    lines.append("--flagfile=FILE reads flags from a file, one a line.")
    return "\n".join(lines) + "\n"


def _help_of(field: dataclasses.Field, width: int) -> list[str]:
    switch = f"--[no]{field.name}" if field.type is bool else f"--{field.name}={field.default}"
    text = field.metadata["help"]
    if field.type is bool:
        text += f" (default: {'on' if field.default else 'off'})"
    if field.metadata["choices"]:
        choices = (choice or '""' for choice in field.metadata["choices"])
        text += f" (one of: {', '.join(choices)})"
    indent = " " * 6
    wrapped = textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [f"  {switch}", *wrapped]
