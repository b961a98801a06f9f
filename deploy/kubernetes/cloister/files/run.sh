#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# One role of the job in its pod. It goes on from what it saved, whoever ended it; when the job is done it stays and answers probes,
# because a StatefulSet would start it for ever. PARTY is server or worker, POD_NAME ends with the ordinal.
set -eu

health=0.0.0.0:9001
index=$((${POD_NAME##*-} + FIRST_INDEX))
# Another job in this volume is not done: the role starts, and refuses what the other one left.
if [ -e finished.json ] && [ "$(cat finished.json)" = "$(cat config/job.json)" ]; then
  echo "$PARTY $index finished this job before; it answers probes"
  exec cloister health --answer "$health"
fi

if [ "$CLOISTER_PLATFORM" = simulated ]; then
  set -- cloister "$PARTY" --job config/job.json --deployment config/deployment.json --index "$index" --resume
else
  set -- sh -c 'cd /opt/enclave && exec gramine-sgx cloister'
fi
# The first process of a container gets no signal that it has no handler for, and hands none on.
child=''
trap '[ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM INT
"$@" &
child=$!
status=0
wait "$child" || status=$?
while kill -0 "$child" 2>/dev/null; do
  status=0
  wait "$child" || status=$?
done
[ "$status" -eq 0 ] || exit "$status"

cp config/job.json finished.json.tmp
mv finished.json.tmp finished.json
echo "$PARTY $index: training finished; it answers probes"
exec cloister health --answer "$health"
