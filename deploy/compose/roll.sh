#!/bin/sh
# Replace the replicas of a service one by one, by what the compose file and the images say now; no request is lost. For
# each: one more is started where the front does not find it; once it is ready, the front does; then the old one is told
# to stop, and ends when it has answered what it has.
set -eu
service=${1:-}
case $service in
command | query) network=front ;;
projector | scheduler) network= ;; # nobody sends them requests
*) echo "say which: make roll service=command (or projector, query, scheduler)" >&2 && exit 2 ;;
esac

# The command line is repeated until it succeeds, for a minute at most.
until_so() {
    for _ in $(seq 120); do
        "$@" && return
        sleep 0.5
    done
    echo "not within a minute: $*" >&2 && exit 1
}

is_healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }
front_knows() { [ "$(docker compose exec -T front ask "/up/$service")" -ge "$1" ]; }

old=$(docker compose ps --quiet "$service")
count=$(echo "$old" | wc -l)
for replica in $old; do
    docker compose up --no-start --no-deps --no-recreate --scale "$service=$((count + 1))" "$service"
    new=$(docker compose ps --all --quiet --status created "$service")
    if [ -n "$network" ]; then
        project=$(docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "$new")
        network=$(docker network ls --quiet --filter "label=com.docker.compose.project=$project" \
            --filter label=com.docker.compose.network=front)
        docker network disconnect "$network" "$new"
    fi
    docker start "$new" >/dev/null
    until_so is_healthy "$new"
    if [ -n "$network" ]; then
        docker network connect --alias "$service" "$network" "$new"
        until_so front_knows $((count + 1))
    fi
    docker stop "$replica" >/dev/null
    docker rm "$replica" >/dev/null
    echo "$replica is replaced by $new"
done
