#!/bin/sh
# The databases of Dagster and of the lake's catalog, and who may do what in them.
set -eu
psql --set ON_ERROR_STOP=1 --username postgres \
    --set dagster="$DAGSTER_PASSWORD" --set writer="$LAKE_PASSWORD" --set reader="$READER_PASSWORD" <<'SQL'
CREATE ROLE dagster LOGIN PASSWORD :'dagster';
CREATE ROLE rnn_writer LOGIN PASSWORD :'writer';
CREATE ROLE rnn_reader LOGIN PASSWORD :'reader';
CREATE DATABASE dagster OWNER dagster;
CREATE DATABASE lake;
SQL
psql --set ON_ERROR_STOP=1 --username postgres --dbname lake --file "${ROLES:-/opt/roles.sql}"
