#!/bin/sh
# Starts the trainer of an uploaded run, detached, and returns at once.
#   start-trainer.sh PYTHON BACKEND
# Leaves in run/: log.txt (everything the trainer says), pid (leader of its session), exit (its status,
# written last, by the trainer or, where it could not, from here). Where AWS takes the machine back,
# interruption.json says when, and the trainer saves and ends with 75, or, where it had not begun yet, with 143.
set -eu

if [ $# -ne 2 ]; then
  echo "usage: start-trainer.sh PYTHON BACKEND" >&2
  exit 2
fi
cd "$(dirname "$0")/../.."
if [ -e run/pid ]; then
  echo "a trainer was already started in $PWD/run" >&2
  exit 1
fi

PYTHONPATH=$PWD/tree
PYTHONUNBUFFERED=1
JAX_PLATFORMS=$2
export PYTHONPATH PYTHONUNBUFFERED JAX_PLATFORMS
# A path set by the image would put other CUDA libraries before those of the wheels.
unset LD_LIBRARY_PATH

# In the background of a script setsid does not fork: $! leads the new session.
setsid sh -c '
  "$1" -P -m trainer train --run-dir run &
  trainer=$!
  sh tree/infra/watch-interruption.sh "$trainer" &
  watcher=$!
  status=0
  wait "$trainer" || status=$?
  kill "$watcher" 2> /dev/null
  if [ ! -e run/exit ]; then
    echo "$status" > run/.exit.new
    mv run/.exit.new run/exit
  fi
' trainer "$1" < /dev/null >> run/log.txt 2>&1 &
echo $! > run/.pid.new
mv run/.pid.new run/pid
