#!/bin/sh
# Note where the stack of containers is reached, and by which token, where `make run` notes it too: for `make demo`, and
# for whoever wants to talk to it. Readable by its owner alone.
set -eu
home=${KEELSON_HOME:-.keelson}
umask 077
mkdir -p "$home"
token=$(docker compose exec -T projector cat /run/secrets/operator_token)
printf '{\n  "command_url": "http://127.0.0.1:%s",\n  "query_url": "http://127.0.0.1:%s",\n  "operator_token": "%s"\n}\n' \
    "${KEELSON_COMMAND_PORT:-8081}" "${KEELSON_QUERY_PORT:-8082}" "$token" >"$home/dev.json.new"
mv "$home/dev.json.new" "$home/dev.json"
echo "ready: command on 127.0.0.1:${KEELSON_COMMAND_PORT:-8081}, query on 127.0.0.1:${KEELSON_QUERY_PORT:-8082}; the operator's token is in $home/dev.json"
