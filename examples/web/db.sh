#!/bin/sh
# Starts PostgreSQL of the host's release, with a cluster of its own.
set -e
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chown postgres:postgres "$PGDATA"
    chmod 0700 "$PGDATA"
    install -m 0400 -o postgres "$DB_PASSWORD_FILE" /tmp/password
    $as_postgres "$bin/initdb" --pgdata="$PGDATA" --encoding=UTF8 --locale=C \
        --username=web --pwfile=/tmp/password --auth=scram-sha-256
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
fi
exec $as_postgres "$bin/postgres" -D "$PGDATA" \
    -c listen_addresses='*' -c unix_socket_directories=/tmp
