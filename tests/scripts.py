"""Training scripts run by tests: in this process where that is enough, else as a person does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import drawing
import harness
import pytest
import training

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--hidden=16", "--latent_dim=4", "--epochs=2")  # a quick run of train_vae


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """Leave this process's settings alone, draw nothing, and know no folder of data."""
    monkeypatch.setattr(harness, "_prepare_process", lambda config: None)
    monkeypatch.setattr(drawing, "save", lambda workdir, pictures: None)
    monkeypatch.delenv("JAXRET_DATA_DIR", raising=False)


def run(script, workdir, *flags):
    """Run a script in this process, as its command line does; return what metrics.json holds."""
    arguments = [f"--workdir={workdir}", "--baselines=false", *flags]
    harness.run(script.CONFIG, lambda config: training.main(config, script), arguments)
    return json.loads((Path(workdir) / "metrics.json").read_text())


def refusal(script, workdir, *flags):
    """Return the line with which a script refuses flags or data."""
    with pytest.raises(SystemExit) as stopped:
        run(script, workdir, *flags)
    assert isinstance(stopped.value.code, str), stopped.value
    assert stopped.value.code.startswith("error: ")
    assert len(stopped.value.code.splitlines()) == 1
    return stopped.value.code


def start(script, *flags, cwd=ROOT, **environment):
    """Start a script as a person does, without a data folder or a GPU."""
    env = {name: value for name, value in os.environ.items() if name != "JAXRET_DATA_DIR"}
    return subprocess.Popen(
        [sys.executable, ROOT / "experiments" / script, *flags],
        cwd=cwd,
        env=env | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(script, *flags, cwd=ROOT, **environment):
    """Run a script as a person does: (exit code, standard output, standard error)."""
    process = start(script, *flags, cwd=cwd, **environment)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def parameters(workdir):
    """Return the arrays of a run's newest checkpoint, by name."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager((Path(workdir) / "checkpoints").resolve()) as manager:
        return manager.restore(
            manager.latest_step(), args=ocp.args.Composite(state=ocp.args.StandardRestore())
        ).state


def stopped_after(monkeypatch, epoch):
    """Make runs stop as by Ctrl-C when this epoch has been trained, its checkpoint saved before."""
    monkeypatch.setenv("JAXRET_CHECKPOINT_SECONDS", "0")
    show = harness.Progress.__call__

    def stop(self, number, terms, images_per_second):
        show(self, number, terms, images_per_second)
        if number == epoch + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(harness.Progress, "__call__", stop)
