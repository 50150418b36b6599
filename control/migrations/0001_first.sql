-- Ids are UUIDv7 as text, instants milliseconds since the Unix epoch, secrets SHA-256 hashes.

CREATE TABLE accounts (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    roles      TEXT NOT NULL,             -- JSON array of role names
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_tokens (
    id          TEXT PRIMARY KEY,
    account     TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    label       TEXT NOT NULL,
    roles       TEXT NOT NULL,            -- JSON array; a part of the account's
    secret_hash BLOB NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER
) STRICT;
CREATE INDEX api_tokens_by_account ON api_tokens (account);

CREATE TABLE edges (
    id                  TEXT PRIMARY KEY,
    name                TEXT NOT NULL UNIQUE,
    owner               TEXT NOT NULL REFERENCES accounts (id),
    address             TEXT NOT NULL UNIQUE,
    attributes          TEXT NOT NULL,    -- JSON, long names
    attributes_revision INTEGER NOT NULL,
    enrolled_at         INTEGER,
    detected            TEXT,             -- JSON, DetectedFacts
    created_at          INTEGER NOT NULL
) STRICT;

CREATE TABLE enrolment_tokens (
    id          TEXT PRIMARY KEY,
    edge        TEXT NOT NULL REFERENCES edges (id) ON DELETE CASCADE,
    secret_hash BLOB NOT NULL UNIQUE,
    expires_at  INTEGER NOT NULL,
    used_at     INTEGER
) STRICT;

CREATE TABLE share_keys (
    id          TEXT PRIMARY KEY,
    edge        TEXT NOT NULL REFERENCES edges (id) ON DELETE CASCADE,
    grantee     TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    key_hash    BLOB NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    redeemed_at INTEGER,
    revoked_at  INTEGER
) STRICT;
-- One living key per edge and grantee.
CREATE UNIQUE INDEX share_keys_living ON share_keys (edge, grantee) WHERE revoked_at IS NULL;
CREATE INDEX share_keys_by_grantee ON share_keys (grantee);

CREATE TABLE containers (
    id                    TEXT PRIMARY KEY,
    name                  TEXT NOT NULL,
    owner                 TEXT NOT NULL REFERENCES accounts (id),
    edge                  TEXT NOT NULL REFERENCES edges (id),
    requirements          TEXT NOT NULL,  -- JSON, long names
    requirements_revision INTEGER NOT NULL,
    generation            INTEGER NOT NULL,
    claim_hash            BLOB,           -- while a claim code is out
    claim_expires_at      INTEGER,
    confirmed_at          INTEGER,        -- NULL: registration pending
    created_at            INTEGER NOT NULL,
    UNIQUE (owner, name)
) STRICT;
-- Whoever has confirmed a container first has it: no second owner, whatever is pending.
CREATE UNIQUE INDEX containers_confirmed ON containers (edge, name) WHERE confirmed_at IS NOT NULL;

-- What the monitor saw last. In tables of their own: they change all the time, and are
-- dispensable.
CREATE TABLE edge_sightings (
    edge           TEXT PRIMARY KEY REFERENCES edges (id) ON DELETE CASCADE,
    health         TEXT NOT NULL,
    since          INTEGER NOT NULL,
    problems       TEXT NOT NULL,         -- JSON array
    cpu_hundredths    INTEGER,
    memory_hundredths INTEGER,
    read_at        INTEGER
) STRICT;

CREATE TABLE container_sightings (
    container TEXT PRIMARY KEY REFERENCES containers (id) ON DELETE CASCADE,
    state     TEXT NOT NULL,
    since     INTEGER NOT NULL
) STRICT;

CREATE TABLE migrations (
    id           TEXT PRIMARY KEY,
    container    TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    requested_by TEXT NOT NULL REFERENCES accounts (id),
    destination  TEXT NOT NULL,           -- JSON, DestinationSpec
    source       TEXT NOT NULL REFERENCES edges (id),
    target       TEXT REFERENCES edges (id),
    state        TEXT NOT NULL,           -- JSON, core's State
    phase        TEXT NOT NULL,           -- its name
    waiting_for  TEXT,
    facts        TEXT NOT NULL,           -- JSON: timings, bytes, stall
    created_at   INTEGER NOT NULL,
    ended_at     INTEGER
) STRICT;
-- Two moves of one container never overlap.
CREATE UNIQUE INDEX migrations_under_way ON migrations (container) WHERE ended_at IS NULL;

CREATE TABLE migration_attempts (
    migration TEXT NOT NULL REFERENCES migrations (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    attempt   TEXT NOT NULL,              -- JSON, Attempt
    PRIMARY KEY (migration, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency_keys (
    account      TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    key          TEXT NOT NULL,
    request_hash BLOB NOT NULL,           -- method, path and body
    status       INTEGER,                 -- NULL: under way
    body         TEXT,
    location     TEXT,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (account, key)
) STRICT, WITHOUT ROWID;
