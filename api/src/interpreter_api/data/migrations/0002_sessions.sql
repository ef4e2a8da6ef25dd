-- Sessions, executions and stored files. Every row belongs to a tenant; every statement of the api names it.

-- Keys that the server makes once and every replica shares (the key that signs links).
CREATE TABLE server_secrets (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- A running server takes the next number and holds an advisory lock on it for as long as it lives: that is how
-- another one, or the same one after a restart, knows whether the author of a 'running' execution still runs.
CREATE SEQUENCE server_numbers AS integer CYCLE;

CREATE TABLE sessions (
    id                   text PRIMARY KEY,
    tenant_id            text NOT NULL,
    principal_id         text NOT NULL,
    name                 text NOT NULL DEFAULT '',
    description          text NOT NULL DEFAULT '',
    class_name           text NOT NULL,
    is_default           boolean NOT NULL DEFAULT false,
    idle_timeout_seconds double precision NOT NULL,
    -- The sandbox that last served this session: where it is set and that sandbox is gone, state was lost.
    sandbox_uid          text,
    executions           bigint NOT NULL DEFAULT 0,
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_used_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX sessions_one_default ON sessions (tenant_id, principal_id) WHERE is_default;
CREATE INDEX sessions_of_principal ON sessions (tenant_id, principal_id, created_at DESC, id DESC);

-- The answer is bytea, not jsonb: output may hold U+0000, which jsonb refuses.
-- No foreign key to sessions: an execution id stays taken when its session is deleted, so it never runs twice.
CREATE TABLE executions (
    tenant_id     text NOT NULL,
    id            text NOT NULL,
    principal_id  text NOT NULL,
    session_id    text,
    request_hash  bytea NOT NULL,
    server_number integer NOT NULL,
    state         text NOT NULL CHECK (state IN ('running', 'done', 'lost', 'deleted')),
    status        text,
    reason        text NOT NULL DEFAULT '',
    answer        bytea,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,
    PRIMARY KEY (tenant_id, id),
    CHECK ((state = 'done') = (answer IS NOT NULL))
);
CREATE INDEX executions_of_session ON executions (tenant_id, session_id);
CREATE INDEX executions_by_age ON executions (created_at);

CREATE TABLE files (
    id           text PRIMARY KEY,
    tenant_id    text NOT NULL,
    session_id   text NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    execution_id text NOT NULL,
    is_chart     boolean NOT NULL,
    name         text NOT NULL,
    path         text NOT NULL,
    mime_type    text NOT NULL,
    size         bigint NOT NULL,
    sha256       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL
);
CREATE INDEX files_of_session ON files (tenant_id, session_id, created_at DESC);
CREATE INDEX files_by_expiry ON files (expires_at);

-- The bytes, in pieces of 1 MiB: a reader or a writer never holds more than one.
CREATE TABLE file_chunks (
    file_id  text NOT NULL REFERENCES files (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    position integer NOT NULL,
    data     bytea NOT NULL,
    PRIMARY KEY (file_id, position)
);
-- xlsx, png and parquet are compressed already: do not spend time on trying again.
ALTER TABLE file_chunks ALTER COLUMN data SET STORAGE EXTERNAL;
