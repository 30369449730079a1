"""The rules of the house: who imports whom, what an import costs, how long a function may be."""

import ast
import os
import re
import resource
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jaxret"
LONGEST = 60  # lines of a function, its docstring counted

# module -> exactly what it imports from jaxret, level by level
IMPORTS = {
    "augment": set(),
    "checkpoint": set(),
    "codes": {"lazy"},
    "divergences": set(),
    "files": set(),
    "inputs": set(),
    "lazy": set(),
    "losses": set(),
    "metrics": set(),
    "models": set(),
    "relax": set(),
    "viz": set(),
    "data": {"files"},
    "search": {"codes", "lazy"},
    "train": {"inputs"},
    "batches": {"data"},
    "encoder": {"data", "files"},
    "gallery": {"codes", "files", "search"},
    "features": {"batches", "data", "models", "train"},
    "hashers": {
        "augment",
        "batches",
        "encoder",
        "features",
        "inputs",
        "losses",
        "models",
        "relax",
        "train",
    },
    "evaluate": {"codes", "divergences", "inputs", "metrics", "search"},
    "positives": {"evaluate", "hashers", "inputs", "search"},
    "index": {
        "batches",
        "codes",
        "data",
        "encoder",
        "features",
        "files",
        "gallery",
        "hashers",
        "lazy",
        "metrics",
        "search",
        "train",
    },
    "app": {"files", "index"},
}
LEARNING = {"augment", "features", "hashers", "losses", "models", "relax", "train"}
RETRIEVAL = {"codes", "gallery", "metrics", "search"}

SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("experiments", "benchmarks")
    for path in (ROOT / folder).glob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)
SOURCES = [
    path
    for folder in ("jaxret", "experiments", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def files_of(module):
    folder = PACKAGE / module
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imported(path):
    """Names of jaxret's modules that a file imports, those inside its functions included."""
    package = ["jaxret", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names]
        yield from (part[1] for part in parts if part[0] == "jaxret" and part[1:2])


def imports_of(module):
    names = {name for path in files_of(module) for name in imported(path)}
    return names.intersection(IMPORTS) - {module}


def test_every_module_has_its_place_in_the_table():
    present = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert present - {"__init__"} == IMPORTS.keys()


@pytest.mark.parametrize("module", IMPORTS)
def test_a_module_imports_exactly_what_the_table_says(module):
    assert imports_of(module) == IMPORTS[module]


def test_no_module_imports_itself_through_others():
    reached = {module: set(imports) for module, imports in IMPORTS.items()}
    for _ in IMPORTS:
        for module, below in reached.items():
            below |= {deeper for name in below for deeper in reached[name]}
            assert module not in below


def test_learning_and_retrieval_do_not_know_each_other():
    for module in LEARNING:
        assert not IMPORTS[module] & RETRIEVAL
    for module in RETRIEVAL:
        assert not IMPORTS[module] & LEARNING


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/a.py"
    path.write_text(
        "import jaxret.codes\nfrom jaxret import train as t\nfrom jaxret.viz.text import plain\n"
        "def f():\n    from .. import relax\n    from ..search import x\n    from .sets import y\n"
        "    import numpy\n"
    )
    assert set(imported(path)) == {"codes", "train", "viz", "relax", "search", "data"}


def test_only_viz_knows_matplotlib():
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if "matplotlib" in path.read_text()
    }
    assert users == {"viz"}


def test_the_package_imports_neither_experiments_nor_benchmarks():
    outside = {Path(script).stem for script in SCRIPTS}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not outside & {alias.name for alias in node.names}, path
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module not in outside, path


def cpu_seconds(*arguments, limit):
    """Seconds of processor time of a Python process, the least of up to three; and its output."""
    least, output = float("inf"), ""
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        least, output = min(least, seconds), done.stdout
        if least < limit:
            break
    return least, output


def test_importing_jaxret_is_quick_and_loads_nothing_heavy():
    heavy = ("flax", "jax", "matplotlib", "numpy", "orbax", "sklearn", "tensorflow", "torch")
    code = f"import jaxret, sys; print(*[name for name in {heavy} if name in sys.modules])"
    seconds, output = cpu_seconds("-c", code, limit=0.3)
    assert output.strip() == ""
    assert seconds < 0.3


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_explains_itself_at_once(script):
    seconds, output = cpu_seconds(script, "-h", limit=0.5)
    assert output.strip()  # a module says which commands use it
    assert seconds < 0.5


@pytest.mark.soak
@pytest.mark.parametrize("script", SCRIPTS)
def test_both_names_of_help_give_the_same_text(script):
    assert cpu_seconds(script, "-h", limit=9)[1] == cpu_seconds(script, "--help", limit=9)[1]


@pytest.mark.soak
def test_a_built_wheel_works_where_the_sources_are_not(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", f"--wheel-dir={tmp_path}", str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("jaxret-*.whl")
    site = tmp_path / "site"
    install = [*pip, "install", "--no-deps", f"--target={site}", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, cwd=tmp_path)
    code = (
        "import importlib.metadata, jaxret, pathlib\n"
        "home = pathlib.Path(jaxret.__file__).parent\n"
        "assert (home / 'py.typed').exists() and (home / 'REFERENCES.md').exists()\n"
        "assert len(list((home / 'app' / 'static').iterdir())) == 3\n"
        "assert importlib.metadata.version('jaxret') == jaxret.__version__\n"
        "images = jaxret.load('digits', 'test').images\n"
        "hasher = jaxret.lsh_hasher(40)\n"
        "params, _ = hasher.fit(__import__('jax').random.key(0), images)\n"
        "print(home, jaxret.pack(hasher.encode(params, images)).shape[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(site / "jaxret"), "2"]


def test_what_the_package_imports_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["app"]
    declared = {re.split(r"[^\w-]", name)[0].lower() for name in needed}
    distributions = {"PIL": "pillow", "absl": "absl-py", "orbax": "orbax-checkpoint"}
    distributions |= {"sklearn": "scikit-learn", "tensorflow_datasets": "tensorflow-datasets"}
    used = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                used.add(node.module.split(".")[0])
    used -= {"jaxret", *sys.stdlib_module_names}
    assert len(used) > 5
    assert {distributions.get(name, name) for name in used} <= declared


def test_no_public_name_hides_a_module():
    import types

    import jaxret

    for module in IMPORTS:
        assert isinstance(getattr(jaxret, module, jaxret), types.ModuleType), module


def functions(path):
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def body_of(function):
    """A function's statements without its docstring."""
    return function.body[ast.get_docstring(function) is not None :]


def num_lines(function):
    return function.end_lineno - function.lineno + 1


def test_a_function_fits_a_screen():
    long = {
        f"{path.relative_to(ROOT)}:{function.name}": num_lines(function)
        for path in (*SOURCES, *sorted((ROOT / "tests").glob("*.py")))
        for function in functions(path)
        if num_lines(function) > LONGEST
    }
    assert not long


def public_functions(nodes):
    """Functions of a module, and of its classes, whose names do not begin with an underscore."""
    for node in nodes:
        if getattr(node, "name", "_").startswith("_") and getattr(node, "name", "") != "__call__":
            continue
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef):
            yield node


def untyped(function):
    """A function's arguments without an annotation, and "return" if that has none."""
    arguments = function.args
    names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    missing = [name.arg for name in names if name.annotation is None]
    missing = [name for name in missing if name not in ("self", "cls")]
    return missing + ([] if function.returns else ["return"])


@pytest.mark.parametrize("module", IMPORTS)
def test_public_functions_have_types(module):
    missing = {
        f"{path.relative_to(PACKAGE)}:{function.name}": untyped(function)
        for path in files_of(module)
        for function in public_functions(ast.parse(path.read_text()).body)
        if untyped(function)
    }
    assert not missing


def exported(package):
    """The functions that a package names in __all__, by the files of that package."""
    for node in ast.parse((package / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = {name.value for name in ast.walk(node.value) if isinstance(name, ast.Constant)}
            for path in sorted(package.rglob("*.py")):
                for function in ast.parse(path.read_text()).body:
                    if isinstance(function, ast.FunctionDef) and function.name in names:
                        yield path, function


def test_exported_functions_of_many_parameters_say_what_each_is():
    packages = [path.parent for path in sorted(PACKAGE.rglob("__init__.py"))]
    found = [both for package in packages for both in exported(package)]
    assert len(found) > 60
    silent = [
        f"{path.relative_to(PACKAGE)}:{function.name}"
        for path, function in found
        if len([*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]) > 3
        and "Args:" not in (ast.get_docstring(function) or "")
    ]
    assert not silent


def test_no_function_is_written_twice():
    places = defaultdict(list)
    for path in SOURCES:
        for function in functions(path):
            body = "".join(ast.dump(statement) for statement in body_of(function))
            if len(body) > 400:  # about three short statements
                places[body].append(f"{path.relative_to(ROOT)}:{function.name}")
    copies = [where for where in places.values() if len(where) > 1]
    assert not copies


def test_the_rules_find_what_breaks_them():
    (one, two) = ast.parse(
        'def one(a: int, b, *, c) -> int:\n    """D\n\n    E."""\n    return 1\n\n\n'
        "def two(self, a: int):\n    return 2\n"
    ).body
    assert untyped(one) == ["b", "c"]
    assert untyped(two) == ["return"]
    assert (num_lines(one), num_lines(two)) == (5, 2)
    assert [ast.unparse(node) for node in body_of(one)] == ["return 1"]
