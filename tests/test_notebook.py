"""The Colab notebook runs from top to bottom, and what it shows is from a run of it."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
NOTEBOOK = FOLDER / "colab.ipynb"


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text_of(notebook):
    return "".join(output.get("text", "") for output in outputs(notebook))


@pytest.fixture
def notebook():
    return pytest.importorskip("nbformat").read(NOTEBOOK, as_version=4)


def test_the_kept_outputs_are_of_one_whole_run_without_errors_or_paths(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    text = text_of(notebook)
    assert "codes/s" in text
    assert "made from: True" in text
    assert "/home" not in text
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook)) == 2
    assert NOTEBOOK.stat().st_size < 500_000


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    (chosen,) = (cell for cell in notebook.cells if cell.source.startswith("import harness"))
    chosen.source = chosen.source.replace('"--workdir=unused"', '"--epochs=3", "--workdir=unused"')
    assert "--epochs=3" in chosen.source
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": FOLDER}}
    ).execute()
    text = text_of(notebook)
    assert "epoch   3/3" in text
    assert "made from: True" in text
