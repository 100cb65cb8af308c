#!/bin/bash
# Train for some minutes and hand back what came of it, where machine time comes in pieces, such as on a borrowed GPU:
#
#   trainer/leg.sh MINUTES OUT STAGE CONFIG [KEY=VALUE …]
#
# Run it from the root of the repository. After MINUTES the training saves and ends; the same command goes on from there
# while log.checkpoint_path is as it was. OUT gets VERSION.pth, the weights in half precision (networks.export), and
# log.txt: a fresh machine goes on from these weights with model.pretrain. Saving and exporting take up to a minute more.
# PROCESSES is the number of processes (default 1, which is right for one GPU), PYTHON the interpreter (default:
# .venv/bin/python if it is there, else python). Exit status: 0, or that of the training where it failed.

set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit 2
}

[ $# -ge 4 ] || fail "found $# arguments, expected: trainer/leg.sh MINUTES OUT STAGE CONFIG [KEY=VALUE …]"
minutes=$1 out=$2 stage=$3 config=$4
shift 4
[[ $minutes =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "MINUTES: found $minutes, expected a number"
[ -f main.py ] || fail "$PWD/main.py: not there; run this from the root of the repository"

python=${PYTHON:-python}
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
places=$("$python" -c '
import sys

from config import load_config
from misc.errors import run_script


def places():
    config = load_config(sys.argv[1], sys.argv[2:])
    print(config.version, config.log.checkpoint_path, config.log.logging_path, sep="\n")


run_script(places)
' "$config" "$@")
{
    read -r version
    read -r checkpoints
    read -r logs
} <<<"$places"

command=("$python" main.py)
processes=${PROCESSES:-1}
if [ "$processes" != 1 ]; then
    command=("$python" -m torch.distributed.run --standalone "--nproc_per_node=$processes" main.py)
fi
status=0
timeout --foreground --signal=TERM --kill-after=120 "${minutes}m" \
    "${command[@]}" --stage "$stage" --config "$config" "$@" || status=$?
if [ "$status" -eq 124 ]; then status=0; fi # the time is over, as asked

last=$checkpoints/$version/last.pth
if [ -f "$last" ]; then
    mkdir -p "$out"
    "$python" -m networks.export "$last" "$out/$version.pth"
    cp "$logs/$version/log.txt" "$out/log.txt"
elif [ "$status" -eq 0 ]; then
    fail "$last: not written within $minutes minutes; give it more"
fi
exit "$status"
