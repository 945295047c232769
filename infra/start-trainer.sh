#!/bin/sh
# Starts the trainer of an uploaded run, detached, and returns at once.
#   start-trainer.sh PYTHON BACKEND [OPTION…]
# The options are passed on to `trainer train`.
# Leaves in run/: log.txt (everything the trainer says), pid (leader of its session), exit (its status,
# written last, by the trainer or, where it could not, from here). Where AWS takes the machine back,
# interruption.json says when, and the trainer saves and ends with 75, or, where it had not begun yet, with 143.
# Where run/data.json is, the data is fetched first (fetch_data.py).
# Where run/bucket.json is, what the run makes is put into a bucket, and the machine then ends itself (bucket.py);
# what that says lies in run/bucket.log.
set -eu

if [ $# -lt 2 ]; then
  echo "usage: start-trainer.sh PYTHON BACKEND [OPTION...]" >&2
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
python=$1
shift 2
# A path set by the image would put other CUDA libraries before those of the wheels.
unset LD_LIBRARY_PATH
# Rights of a machine that has just booted may take a while to be there.
AWS_METADATA_SERVICE_NUM_ATTEMPTS=5
AWS_METADATA_SERVICE_TIMEOUT=5
export AWS_METADATA_SERVICE_NUM_ATTEMPTS AWS_METADATA_SERVICE_TIMEOUT

if [ -e run/bucket.json ]; then
  "$python" -P tree/infra/bucket.py try
fi

# In the background of a script setsid does not fork: $! leads the new session.
setsid sh -c '
  python=$1
  shift
  if [ -e run/bucket.json ]; then
    "$python" -P tree/infra/bucket.py beside >> run/bucket.log 2>&1 &
  fi
  status=0
  if [ -e run/data.json ]; then
    "$python" -P tree/infra/fetch_data.py || status=$?
  fi
  if [ "$status" -eq 0 ]; then
    "$python" -P -m trainer train --run-dir run "$@" &
    trainer=$!
    sh tree/infra/watch-interruption.sh "$trainer" &
    watcher=$!
    wait "$trainer" || status=$?
    kill "$watcher" 2> /dev/null
  fi
  if [ ! -e run/exit ]; then
    echo "$status" > run/.exit.new
    mv run/.exit.new run/exit
  fi
  if [ -e run/bucket.json ]; then
    wait
    "$python" -P tree/infra/bucket.py finish >> run/bucket.log 2>&1
  fi
' trainer "$python" "$@" < /dev/null >> run/log.txt 2>&1 &
echo $! > run/.pid.new
mv run/.pid.new run/pid
