"""A training script that is stopped, killed or trained longer goes on where it was."""

import json
import os
import signal
import time

import numpy as np
import pytest
import train_vae
import workdir as workdirs
from scripts import SMALL, command, in_process, parameters, refusal, run, start, stopped_after

__all__ = ["in_process"]


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_parameters_bit_for_bit(tmp_path, monkeypatch):
    flags = ("--hidden=16", "--latent_dim=4", "--epochs=4")
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        with pytest.raises(SystemExit) as stopped:
            run(train_vae, tmp_path / "stopped", *flags)
    assert stopped.value.code == 130
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    resumed = run(train_vae, tmp_path / "stopped", *flags, "--resume")
    whole = run(train_vae, tmp_path / "whole", *flags)
    assert resumed["metrics"] == whole["metrics"]
    first, second = parameters(tmp_path / "whole"), parameters(tmp_path / "stopped")
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    log = (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2, 3, 4]
    assert "--resume" not in (tmp_path / "stopped" / "args.flags").read_text()


@pytest.mark.soak
def test_a_killed_run_resumes_to_the_same_parameters_bit_for_bit(tmp_path):
    flags = ("--hidden=64", "--latent_dim=4", "--epochs=60", "--batch_size=10")
    flags += ("--baselines=false",)
    code, _, err = command("train_vae.py", *flags, f"--workdir={tmp_path / 'whole'}")
    assert code == 0, err
    process = start(
        "train_vae.py", *flags, f"--workdir={tmp_path / 'killed'}", JAXRET_CHECKPOINT_SECONDS="0"
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # until something is saved, and the next save is under way
        if len(list((tmp_path / "killed").glob("checkpoints/[0-9]*"))) >= 2:
            break
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    code, _, err = command("train_vae.py", *flags, f"--workdir={tmp_path / 'killed'}", "--resume")
    assert code == 0, err
    assert "epoch 1/60" not in err  # it did not start over
    whole, resumed = parameters(tmp_path / "whole"), parameters(tmp_path / "killed")
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name])
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "killed")]
    epochs = [[json.loads(line)["epoch"] for line in log.splitlines()] for log in logs]
    assert epochs[0] == epochs[1] == list(range(1, 61))


@pytest.mark.soak
def test_a_finished_run_can_be_trained_longer_or_gathered_without_its_log(tmp_path):
    flags = ("--hidden=16", "--latent_dim=4")
    short = run(train_vae, tmp_path / "w", *flags, "--epochs=1")
    (tmp_path / "w" / "log.jsonl").unlink()
    again = run(train_vae, tmp_path / "w", *flags, "--epochs=1", "--resume")
    assert again["metrics"] == short["metrics"]
    assert again["train"] == short["train"]
    longer = run(train_vae, tmp_path / "w", *flags, "--epochs=2", "--resume")
    straight = run(train_vae, tmp_path / "straight", *flags, "--epochs=2")
    assert longer["metrics"] == straight["metrics"]
    said = refusal(train_vae, tmp_path / "w", *flags, "--epochs=1", "--resume")
    assert "holds a run of 2 epochs, which --epochs=1 cannot shorten" in said


@pytest.mark.soak
def test_a_run_whose_schedule_spans_it_cannot_be_trained_longer(tmp_path):
    flags = (*SMALL, "--learning_rate_end=1e-4")
    run(train_vae, tmp_path / "w", *flags)
    said = refusal(train_vae, tmp_path / "w", *flags, "--epochs=9", "--resume")
    assert "over 2 epochs, whose learning rate" in said
    assert f"--init_from={tmp_path / 'w'}" in said


def test_two_runs_in_one_folder_are_told_of_each_other(tmp_path):
    with workdirs.locked(tmp_path):
        said = refusal(train_vae, tmp_path, *SMALL)
        assert f"is in use by process {os.getpid()} on " in said
    with workdirs.locked(tmp_path):  # and it is free again
        pass
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_seconds_that_are_no_number_are_refused(tmp_path, monkeypatch):
    for text in ("abc", "-1", "nan"):
        monkeypatch.setenv("JAXRET_CHECKPOINT_SECONDS", text)
        said = refusal(train_vae, tmp_path / "w", *SMALL)
        assert f"JAXRET_CHECKPOINT_SECONDS must be a number of seconds, got '{text}'" in said
    assert not (tmp_path / "w").exists()
