#!/bin/sh
# Lets a machine that nobody uses end itself, sooner than the timer of its first boot, which stays armed.
#   keep-alive.sh SECONDS   ends the machine so long from now
#   keep-alive.sh stop      takes that back: somebody uses it again
set -eu

unit=launch-and-train-idle
case ${1-} in
  stop) sudo systemctl stop "$unit.timer" ;;
  '' | *[!0-9]*)
    echo "usage: keep-alive.sh SECONDS | stop" >&2
    exit 2
    ;;
  *)
    # A timer that was armed before would be in the way of this one.
    sudo systemctl stop "$unit.timer" 2> /dev/null || true
    sudo systemd-run --unit="$unit" --timer-property=AccuracySec=1s --on-active="$1" systemctl poweroff --force
    ;;
esac
