"""The import directions of the house, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jaxret"

# module -> what it may import from jaxret
ALLOWED = {
    "data": set(),
    "augment": set(),
    "divergences": set(),
    "relax": set(),
    "losses": set(),
    "metrics": set(),
    "codes": set(),
    "checkpoint": set(),
    "viz": set(),
    "models": set(),
    "search": {"codes"},
    "train": {"checkpoint"},
    "gallery": {"codes", "search"},
    "hashers": {"models", "relax", "losses", "train"},
    "evaluate": {"codes", "divergences", "search", "metrics"},
}
MODULES = sorted(path.stem for path in PACKAGE.iterdir() if path.stem in ALLOWED)


def test_every_module_has_its_place():
    present = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert present - {"__init__", "__pycache__"} <= ALLOWED.keys()


def files_of(module):
    folder = PACKAGE / module
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imported(path):
    """Names of jaxret's modules that a file imports, those inside its functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if node.module == "jaxret":
                names = [f"jaxret.{alias.name}" for alias in node.names]
            else:
                names = [node.module]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("jaxret."))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_lies_below_it(module):
    found = {name for path in files_of(module) for name in imported(path)} - {module}
    assert found <= ALLOWED[module]


def test_only_viz_knows_matplotlib():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "matplotlib" in path.read_text()
    }
    assert users <= {"viz.py"}


def test_importing_jaxret_loads_nothing_heavy():
    heavy = ("tensorflow", "tensorflow_datasets", "matplotlib", "orbax", "sklearn", "torch")
    code = f"import jaxret, sys; print(*[name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_no_public_name_hides_a_module():
    import types

    import jaxret

    for module in MODULES:
        assert isinstance(getattr(jaxret, module, jaxret), types.ModuleType), module
