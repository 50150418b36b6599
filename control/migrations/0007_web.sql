-- How people log in to the pages. An account without a row here has tokens only.
CREATE TABLE passwords (
    account TEXT PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    hash    TEXT NOT NULL,               -- argon2id, as a PHC string
    set_at  INTEGER NOT NULL
) STRICT;

-- The paper's session database. The cookie's secret is kept as its SHA-256 hash.
CREATE TABLE sessions (
    id          TEXT PRIMARY KEY,
    account     TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    secret_hash BLOB NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    used_at     INTEGER NOT NULL,
    address     TEXT NOT NULL,           -- from where it was begun
    browser     TEXT NOT NULL            -- what it calls itself
) STRICT;
CREATE INDEX sessions_by_account ON sessions (account);
