#!/bin/sh
# Finds or makes the Python environment that the trainer runs in, and prints it:
#   python=PATH, backend=cuda|cpu, note=HOW IT CAME ABOUT
# A ready environment is one that ~/.launch-and-train/environment names. Otherwise one is made there from
# the lock that suits the NVIDIA driver, and tried: JAX must see every GPU, or the run would be trained on
# the CPU at the price of GPUs.
#   bootstrap.sh [--backend cpu] [--print-plan]
# --backend cpu makes an environment without CUDA; --print-plan says what would be done and does nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
home=$HOME/.launch-and-train
backend=cuda
planning=no

fail() {
  echo "$*" >&2
  exit 1
}

say() {
  echo "$*" >&2
}

main() {
  parse "$@"
  if [ "$planning" = no ]; then wait_for_boot; fi
  if has_ready_environment; then
    print_environment "ready-made environment"
    return
  fi
  choose_lock
  find_python
  if [ "$planning" = yes ]; then
    printf 'lock=%s\nbackend=%s\ndriver=%s\ngpus=%s\npython=%s\n' "$lock" "$backend" "$driver" "$gpus" "$base"
    return
  fi
  make_environment
  try_environment
  write_note
  print_environment "$lock.lock installed in $(($(date +%s) - started)) s: $tried"
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --print-plan) planning=yes ;;
      --backend)
        shift
        case ${1-} in
          cpu | cuda) backend=$1 ;;
          *) fail "--backend: cpu or cuda, not '${1-}'" ;;
        esac
        ;;
      *) fail "usage: bootstrap.sh [--backend cpu] [--print-plan]" ;;
    esac
    shift
  done
}

# cloud-init may still be at work behind SSH; 2 means that it ended with warnings.
wait_for_boot() {
  if command -v cloud-init > /dev/null; then
    timeout 900 cloud-init status --wait > /dev/null 2>&1 || say "cloud-init did not end well; going on"
  fi
}

has_ready_environment() {
  [ -f "$home/environment" ] || return 1
  noted_python=$(sed -n 's/^python=//p' "$home/environment")
  noted_backend=$(sed -n 's/^backend=//p' "$home/environment")
  [ -x "$noted_python" ] && [ -n "$noted_backend" ] || return 1
  python=$noted_python backend=$noted_backend
}

print_environment() {
  printf 'python=%s\nbackend=%s\nnote=%s\n' "$python" "$backend" "$1"
}

# The wheels' needs: CUDA 13 wants driver 580 and compute capability 7.5, CUDA 12 wants driver 525.
choose_lock() {
  driver='' gpus=0 lock=cpu
  if [ "$backend" = cpu ]; then return; fi
  command -v nvidia-smi > /dev/null ||
    fail "no nvidia-smi on this machine: choose an image with the NVIDIA driver"
  answer=$(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader) ||
    fail "nvidia-smi failed: $(echo "$answer" | head -n 1)"
  gpus=$(echo "$answer" | wc -l | tr -d ' ')
  driver=$(echo "$answer" | head -n 1 | cut -d , -f 1 | tr -d ' ')
  capability=$(echo "$answer" | head -n 1 | cut -d , -f 2 | tr -d ' .')
  major=${driver%%.*}
  case $major$capability in
    '' | *[!0-9]*) fail "nvidia-smi gave no driver version: $answer" ;;
  esac
  if [ "$major" -ge 580 ] && [ "${capability:-0}" -ge 75 ]; then
    lock=cuda13
  elif [ "$major" -ge 525 ]; then
    lock=cuda12
  else
    fail "NVIDIA driver $driver is too old for JAX (525 or newer is needed): choose a newer image"
  fi
}

find_python() {
  for base in python3 python3.14 python3.13 python3.12 python3.11; do
    base=$(command -v "$base") || continue
    if "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then return; fi
  done
  fail "no python 3.11 or newer on this machine: choose a newer image"
}

make_environment() {
  started=$(date +%s)
  python=$home/venv/bin/python
  rm -rf "$home/venv"
  mkdir -p "$home"
  if ! "$base" -m venv "$home/venv" > "$home/install.log" 2>&1; then install_venv; fi
  # uv, of the version that the lock pins, installs the rest many times faster than pip.
  awk '/^[^ #]/ { wanted = /^uv==/ } wanted' "$here/locks/$lock.lock" > "$home/uv.txt"
  run "$python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$home/uv.txt"
  run "$python" -m uv pip sync --quiet --python "$python" --require-hashes "$here/locks/$lock.lock"
}

# Debian and Ubuntu keep venv in a package of its own. Upgrades at first boot may hold apt's lock.
install_venv() {
  command -v apt-get > /dev/null || fail "$base has no venv: $(tail -n 1 "$home/install.log")"
  package=$("$base" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  wait="-o DPkg::Lock::Timeout=600"
  # shellcheck disable=SC2086 # two words
  run sudo apt-get $wait update
  # shellcheck disable=SC2086
  run sudo DEBIAN_FRONTEND=noninteractive apt-get $wait install -y "$package"
  rm -rf "$home/venv"
  run "$base" -m venv "$home/venv"
}

run() {
  "$@" >> "$home/install.log" 2>&1 || fail "installing failed: $(tail -n 1 "$home/install.log")"
}

try_environment() {
  unset LD_LIBRARY_PATH
  tried=$(JAX_PLATFORMS=$backend "$python" -c '
import sys, jax
devices = jax.local_devices()
print(f"Python {sys.version.split()[0]}, JAX {jax.__version__}, {len(devices)} x {devices[0].device_kind}")
sys.exit(f"JAX sees {len(devices)} of {sys.argv[1]} GPUs" if len(devices) < int(sys.argv[1]) else 0)
' "$gpus" 2> "$home/try.log") || fail "JAX does not work here: $(tail -n 1 "$home/try.log")"
}

write_note() {
  printf 'python=%s\nbackend=%s\n' "$python" "$backend" > "$home/environment.new"
  mv "$home/environment.new" "$home/environment"
}

main "$@"
