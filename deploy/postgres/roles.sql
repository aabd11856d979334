-- Who may do what in the lake's catalog. Run once in its database, as a superuser, after
--   CREATE ROLE rnn_writer LOGIN PASSWORD '...';  CREATE ROLE rnn_reader LOGIN PASSWORD '...';
-- The object store needs the same two: keys that write the bucket, and keys that read it.
-- Idempotent: run it again after a change.

DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, CREATE, TEMPORARY ON DATABASE %I TO rnn_writer', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO rnn_reader', current_database());
END
$$;

-- DuckLake makes a schema for each source, and in it tables as it goes: whatever the writer makes
-- from now on, the reader may read.
ALTER DEFAULT PRIVILEGES FOR ROLE rnn_writer GRANT USAGE ON SCHEMAS TO rnn_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE rnn_writer GRANT SELECT ON TABLES TO rnn_reader;
