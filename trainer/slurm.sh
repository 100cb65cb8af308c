#!/bin/bash
# Train on a SLURM cluster, one launcher per node and one process per GPU:
#
#   sbatch [--nodes=N] [--gpus-per-node=G] [--time=…] trainer/slurm.sh STAGE CONFIG [KEY=VALUE …]
#
# Submit it from the root of the repository. Five minutes before the time limit all processes save and end, and the job
# goes back into the queue, to go on from there. A process that dies is started again with all the others, from the
# last checkpoint. log.checkpoint_path has to be a folder that all nodes see. PYTHON names the interpreter
# (default: .venv/bin/python if it is there, else python).
#
#SBATCH --job-name=instmatt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.txt

set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit 2
}

[ $# -ge 2 ] || fail "found $# arguments, expected: sbatch trainer/slurm.sh STAGE CONFIG [KEY=VALUE …]"
[ -n "${SLURM_JOB_ID:-}" ] || fail "SLURM_JOB_ID: not set, expected a SLURM job; submit this file with sbatch"
stage=$1 config=$2
shift 2
cd "${SLURM_SUBMIT_DIR:-.}"
[ -f main.py ] || fail "$PWD/main.py: not there; submit from the root of the repository"
[ -f "$config" ] || fail "$config: no such file in $PWD"

python=${PYTHON:-python}
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
launcher=(
    -m torch.distributed.run
    "--nnodes=$SLURM_JOB_NUM_NODES"
    "--nproc_per_node=${SLURM_GPUS_ON_NODE:-1}"
    --rdzv_backend=c10d
    "--rdzv_endpoint=${hosts%%$'\n'*}:$((20000 + SLURM_JOB_ID % 20000))"
    "--rdzv_id=$SLURM_JOB_ID"
    --max-restarts=3
)
# A launcher kills its processes 30 s after it told them to stop; newer ones can give them the time to end a validation.
help=$("$python" -m torch.distributed.run --help)
if [[ $help == *--shutdown-timeout* ]]; then launcher+=(--shutdown-timeout=240); fi
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi

stopping=
srun --kill-on-bad-exit=1 "$python" "${launcher[@]}" main.py --stage "$stage" --config "$config" "$@" &
step=$!
trap 'stopping=1; kill -TERM "$step"' TERM

status=0
wait "$step" || status=$?
while [ -n "$stopping" ] && kill -0 "$step" 2>/dev/null; do # the signal ended the first wait, not the training
    status=0
    wait "$step" || status=$?
done
if [ -n "$stopping" ] && [ "$status" -ne 0 ]; then
    echo "stopped before the time limit; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
