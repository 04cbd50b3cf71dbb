"""The files and the page for clusters, checked without the platforms: schema, commands that exist, flags that parse."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

from conftest import ROOT
from mvsa_tune import cli
from mvsa_tune.errors import InputError
from mvsa_tune.sweeps import SWEEPS

FILES = ROOT / "sweeps" / "cluster"
SCRIPTS = {f"sweeps/{name}.py": sweep for name, sweep in SWEEPS.items()}
TEXTS = [*sorted(FILES.iterdir()), ROOT / "docs" / "cluster.md"]
# The fields of KubeRay's API (ray-operator/apis/ray/v1, KubeRay 1.5.1) that are allowed in each object.
RAY_JOB = {
    "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "rayClusterSpec", "activeDeadlineSeconds", "runtimeEnvYAML", "submitterPodTemplate", "suspend", "metadata", "jobId",
    "clusterSelector", "entrypointNumCpus", "entrypointNumGpus",
}  # fmt: skip
RAY_CLUSTER = {
    "rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling", "autoscalerOptions",
    "suspend",
}  # fmt: skip
HEAD_GROUP = {"serviceType", "headService", "enableIngress", "rayStartParams", "template"}
WORKER_GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template"}


RAY = "start|up|down|exec|rsync-up|job|status|get-auth-token"


def commands_in(text: str) -> list[list[str]]:
    """Return every command of the project and of Ray in a text, in comments, code blocks, shell and YAML alike.

    What a shell would put in is made up.
    """
    joined = re.sub(r"\\\n\s*#?\s*", " ", re.sub(r"python /\S*/sweeps/", "python sweeps/", text))
    commands = []
    for line in joined.splitlines():
        line = re.sub(r"\s#\s.*$", "", line).replace("…", "").replace('"$@"', "").strip("# `-")
        for piece in re.findall(rf"(?:python sweeps/\w+\.py|python -m mvsa_tune|ray (?:{RAY}))\b[^`|&;']*", line):
            if "..." in piece or "[" in piece:
                continue
            words = shlex.split(re.sub(r"\$\{?\w+\}?", "7", piece.split(" — ")[0]))
            commands.append([word for word in words if word != "&"])
    return commands


def check(words: list[str]) -> None:
    """Check that a command's program, subcommand and flags exist."""
    if words[0] == "ray":
        name, rest = words[1], words[2:]
        known = ray_cli.commands[name]
        if name == "job":
            return
        flags = {flag for option in known.params for flag in [*option.opts, *option.secondary_opts]}
        used = [word.partition("=")[0] for word in rest if word.startswith("-")]
        assert set(used) <= flags, (words, set(used) - flags)
    elif words[1] == "-m":
        cli.parse(words[3:])
    else:
        SCRIPTS[words[1]].parse(words[2:])


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_exists_and_its_flags_parse(path: Path) -> None:
    commands = commands_in(path.read_text(encoding="utf-8"))
    assert commands
    for words in commands:
        check(words)


def test_a_flag_that_does_not_exist_is_found() -> None:
    (words,) = commands_in("    ray start --heed --port=6379   # a comment\n")
    with pytest.raises(AssertionError, match="heed"):
        check(words)
    (words,) = commands_in("# python sweeps/grid.py --adress auto")
    with pytest.raises(InputError, match=r"did you mean --address\?"):
        check(words)


@pytest.mark.parametrize("name", ["hosts", "aws"])
def test_the_files_for_ray_up_are_what_rays_own_check_takes(name: str) -> None:
    written = yaml.safe_load((FILES / f"{name}.yaml").read_text(encoding="utf-8"))
    whole = prepare_config(written)
    validate_config(whole)
    start = [*written["head_start_ray_commands"], *written["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in start if "ray start" in line)
    assert any(path.endswith(".ray/auth_token") for path in written["file_mounts"])
    assert not any("0.0.0.0" in line for line in start)  # the dashboard is for the head alone
    with pytest.raises(Exception, match="maximum_workers"):
        validate_config({**whole, "maximum_workers": 3})


def test_the_file_for_kuberay_has_fields_that_kuberay_knows() -> None:
    job = yaml.safe_load((FILES / "kuberay.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob") and set(job["spec"]) <= RAY_JOB
    cluster = job["spec"]["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert (
        set(cluster) <= RAY_CLUSTER and set(head) <= HEAD_GROUP and all(set(group) <= WORKER_GROUP for group in workers)
    )
    assert cluster["authOptions"] == {"mode": "token"} and head["serviceType"] == "ClusterIP"
    for group in (head, *workers):
        flags = {flag for option in ray_cli.commands["start"].params for flag in option.opts}
        assert {f"--{name}" for name in group["rayStartParams"]} <= flags
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        check_pod(group["template"]["spec"])
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in workers)


def check_pod(pod: dict[str, Any]) -> None:
    """Check that mounted volumes exist, and that containers request what their limits are: Ray counts by the limits."""
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod["containers"]:
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
        assert container["resources"]["requests"] == container["resources"]["limits"]


NOTE = 'echo "$RAY_AUTH_MODE $(wc -c < "$RAY_AUTH_TOKEN_PATH") {} $*" >> "$CALLS"'
SERVE = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
STUBS = {
    "scontrol": 'echo "n1"; echo "n2"',
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 127.0.0.1",
    "ray": f"{NOTE.format('ray')}; [[ $* == *--head* ]] || exit 0\n"
    'port=$(sed "s/.*--port=\\([0-9]*\\).*/\\1/" <<< "$*")\n'
    f'exec "$PYTHON" -c "{SERVE}" "$port"',
    "python": '[[ $1 == sweeps/* ]] || exec "$PYTHON" "$@"\n'
    'while (($(wc -l < "$CALLS") < 2)); do sleep 0.1; done\n'
    f"{NOTE.format('python')}",
}


def test_the_file_for_slurm_starts_head_nodes_and_sweep_with_one_secret(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", FILES / "slurm.sh"], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", FILES / "slurm.sh"], check=True)
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    for name, body in STUBS.items():
        (bin_folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (bin_folder / name).chmod(0o755)
    (bin_folder / "activate").write_text("")
    slurm = {
        "SUBMIT_DIR": tmp_path,
        "JOB_ID": "4711",
        "JOB_NODELIST": "n[1-2]",
        "JOB_NUM_NODES": 2,
        "CPUS_PER_TASK": 16,
        "GPUS_ON_NODE": 4,
    }
    environment = {
        **os.environ,
        **{f"SLURM_{name}": str(value) for name, value in slurm.items()},
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "PYTHON": sys.executable,
    }
    script = ["bash", str(FILES / "slurm.sh"), "--data", "set", "--name", "wide"]
    process = subprocess.Popen(script, env=environment, start_new_session=True)
    try:
        assert process.wait(timeout=30) == 0
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 3 and all(
        call.startswith("token 65 ") for call in calls
    )  # 32 bytes in hexadecimal, and the line's end
    head, sweep = (next(call for call in calls if word in call) for word in ("--head", "sweeps/grid.py"))
    for call in calls:
        check(shlex.split(call)[2:])
    assert "--node-ip-address=127.0.0.1 --port=24711" in head and "--num-cpus=16 --num-gpus=4" in head
    assert "--address 127.0.0.1:24711 --nodes 2 --data set --name wide" in sweep
    assert not list(tmp_path.glob(".ray-token*"))


def test_the_parsers_of_all_commands_know_where_to_run() -> None:
    for script in SWEEPS.values():
        options = script.parse(
            ["--address", "auto", "--nodes", "3", "--storage", "s3://bucket/results", "--memory-per-trial", "2"]
        )
        assert (options.address, options.nodes, options.storage, options.memory_per_trial) == (
            "auto",
            3,
            "s3://bucket/results",
            2,
        )
