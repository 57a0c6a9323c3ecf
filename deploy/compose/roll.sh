#!/bin/sh
# Replace the replicas of a service one by one, by what the compose file and the images say now; no request is lost. For
# each: one more is started, ready, and known to the front; then the old one is told to stop, and ends when it has
# answered what it has.
set -eu
service=${1:-}
case $service in
command | projector | query) ;;
*) echo "say which: make roll service=command (or projector, query)" >&2 && exit 2 ;;
esac

known_to_front() {
    [ "$service" = projector ] && return
    for _ in $(seq 60); do
        [ "$(docker compose exec -T front ask "/up/$service")" -ge "$1" ] && return
        sleep 0.5
    done
    echo "the front does not find $1 ready replicas of $service" >&2 && exit 1
}

old=$(docker compose ps --quiet "$service")
count=$(echo "$old" | wc -l)
for replica in $old; do
    docker compose up --detach --wait --no-deps --no-recreate --scale "$service=$((count + 1))" "$service"
    known_to_front $((count + 1))
    docker stop "$replica" >/dev/null
    docker rm "$replica" >/dev/null
    echo "replaced $replica"
done
