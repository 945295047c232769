#!/bin/sh
# Waits for AWS's notice that it takes this spot machine back, about two minutes ahead; then writes it to
# run/interruption.json and asks the trainer to save and end. Ends with the trainer. Silent where there is no
# such service, and on machines that are not spot.
#   watch-interruption.sh TRAINER_PID
# LAUNCH_AND_TRAIN_METADATA and LAUNCH_AND_TRAIN_METADATA_SECONDS: where to ask and how often; for rehearsals.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
set -u

trainer=$1
service=${LAUNCH_AND_TRAIN_METADATA:-http://169.254.169.254}
# AWS's advice.
pause=${LAUNCH_AND_TRAIN_METADATA_SECONDS:-5}

ask() {
  curl --silent --fail --noproxy '*' --max-time 2 "$@" 2> /dev/null
}

# The token goes by standard input: arguments can be read by everybody on the machine.
notice() {
  token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$service/latest/api/token") || return 1
  echo "X-aws-ec2-metadata-token: $token" | ask -H @- "$service/latest/meta-data/spot/instance-action"
}

command -v curl > /dev/null || exit 0
while kill -0 "$trainer" 2> /dev/null; do
  if told=$(notice) && [ -n "$told" ]; then
    echo "$told" > run/.interruption.new
    mv run/.interruption.new run/interruption.json
    kill -s TERM "$trainer" 2> /dev/null
    exit 0
  fi
  sleep "$pause"
done
