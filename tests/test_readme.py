"""The README's claims that a test can hold."""

import re
from pathlib import Path

import numpy as np
import pytest
import train_vae
from PIL import Image
from scripts import in_process, run

import jaxret

__all__ = ["in_process"]
ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_examples_are_python_and_name_what_jaxret_has():
    assert len(EXAMPLES) == 4
    for example in EXAMPLES:
        compile(example, "README.md", "exec")
        for name in re.findall(r"\bjaxret\.([A-Za-z_]+)", example):
            if not re.search(rf"from jaxret\.{name} import", example):
                assert hasattr(jaxret, name), name


@pytest.mark.soak
def test_the_examples_run_and_find_the_right_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What the README's first command leaves, after fewer epochs.
    flags = f"--flagfile={ROOT / 'experiments/digits/vae.flags'}"
    run(train_vae, "runs/digits", flags, "--epochs=2", "--workdir=runs/digits")
    for picture in re.findall(r'read_image\("([^"]+)"', "".join(EXAMPLES)):
        Path(picture).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(picture)
    names = {}
    for example in EXAMPLES:
        exec(example, names)
    assert names["gallery"].shape == (1438, 2)
    assert names["neighbors"].indices.shape == (359, 10)
    assert names["scores"]["map@1/retrieved"] > 0.94
    assert names["found"].shape == (1, 10)
    assert names["distances"][0, 0] == 0
    assert names["ids"][2] in names["within"].indices


def test_the_test_command_is_the_one_that_ci_calls():
    assert "pip install -e '.[test]' && pytest" in README
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert any(re.match(r"pytest( --slow)?$", line) for line in ci)


def test_every_place_on_the_map_exists():
    for place in re.findall(r"^\| `(jaxret/[\w/.]+)`", README, re.MULTILINE):
        assert (ROOT / place).exists(), place


def test_every_flagfile_that_is_named_exists():
    for name in re.findall(r"--flagfile=(\S+\.flags)", README):
        assert (ROOT / name).exists(), name
