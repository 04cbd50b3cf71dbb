#!/bin/bash
# A sweep on Slurm: a Ray cluster for the time of the allocation, and the sweep's driver on its first node.
#     sbatch sweeps/cluster/slurm.sh --data /shared/mvsa_single --pairs mobilenet_v2+minilm --name wide
#     sbatch --nodes=8 --gpus-per-node=4 sweeps/cluster/slurm.sh …
# The arguments after the script's name go to sweeps/grid.py, or to the script that MVSA_SCRIPT names (search, finetune).
# Submit it from the clone's folder, on a file system that the nodes share, with the environment in .venv. If the time
# was too short, submit the same line again, and the sweep continues.
#SBATCH --job-name=mvsa-tune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --output=mvsa-tune-%j.log

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}"
# shellcheck disable=SC1091
source .venv/bin/activate

# A secret for this allocation, without which nobody on the network gets in. It is in a private file, not in the environment.
umask 077
token=$PWD/.ray-token-$SLURM_JOB_ID
python -c 'import secrets; print(secrets.token_hex(32))' > "$token"
trap 'rm -f "$token"' EXIT
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
ip=$(srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" hostname --ip-address | awk '{print $1}')
# Several allocations may share a node's network, so each has another port.
port=$((20000 + SLURM_JOB_ID % 10000))
gpus=${SLURM_GPUS_ON_NODE:-0}

srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
    ray start --head --node-ip-address="$ip" --port="$port" --include-dashboard=false \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --temp-dir="/tmp/ray-$SLURM_JOB_ID" --block &
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
    until python - "$ip" "$port" <<'PYTHON'; do sleep 1; done
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
except OSError:
    sys.exit(1)
PYTHON
    srun --nodes="$others" --ntasks="$others" --ntasks-per-node=1 --overlap --exclude="$head" \
        ray start --address="$ip:$port" \
        --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --temp-dir="/tmp/ray-$SLURM_JOB_ID" --block &
fi

srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
    python "sweeps/${MVSA_SCRIPT:-grid}.py" --address "$ip:$port" --nodes "$SLURM_JOB_NUM_NODES" "$@"
