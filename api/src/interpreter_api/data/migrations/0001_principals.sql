-- Who may call. A key's text is never stored: a random key of 160 bits and more needs no slow hash, SHA-256 is enough.

CREATE TABLE tenants (
    id          text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE principals (
    id          text PRIMARY KEY,
    tenant_id   text NOT NULL REFERENCES tenants (id),
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    is_admin    boolean NOT NULL DEFAULT false,
    -- 'key': made by `keys create` or API_KEY. 'oauth': first seen in a token; subject is 'issuer subject'.
    kind        text NOT NULL CHECK (kind IN ('key', 'oauth')),
    subject     text UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

CREATE TABLE api_keys (
    id            text PRIMARY KEY,
    principal_id  text NOT NULL REFERENCES principals (id),
    key_sha256    bytea NOT NULL UNIQUE CHECK (octet_length(key_sha256) = 32),
    -- True for the one that the API_KEY setting names: another API_KEY replaces it at the next start.
    from_setting  boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz
);

CREATE INDEX api_keys_by_principal ON api_keys (principal_id);
