-- The ledger. Nothing here is ever changed or removed but the checkpoint, which grows.

CREATE TABLE ledger_entries (
    number    INTEGER PRIMARY KEY,        -- from 0, without gaps
    at        INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    container TEXT,                       -- what it is about, for looking it up
    edge      TEXT,
    migration TEXT,
    entry     BLOB NOT NULL               -- JSON; the bytes that are hashed
) STRICT;
CREATE INDEX ledger_entries_by_container ON ledger_entries (container, number);
CREATE INDEX ledger_entries_by_edge ON ledger_entries (edge, number);
CREATE INDEX ledger_entries_by_migration ON ledger_entries (migration, number);
CREATE INDEX ledger_entries_by_kind ON ledger_entries (kind, number);

CREATE TABLE ledger_nodes (
    node INTEGER PRIMARY KEY,             -- C2SP's order of stored hashes
    hash BLOB NOT NULL
) STRICT;

CREATE TABLE ledger_checkpoint (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    size INTEGER NOT NULL,
    note TEXT NOT NULL                    -- C2SP signed-note
) STRICT;

-- SHA-256 of the certificate (DER) that an edge's agent has, in hexadecimal digits.
ALTER TABLE edges ADD COLUMN certificate TEXT;
ALTER TABLE edges ADD COLUMN revoked_at INTEGER;

-- The permit that a migration is carried out under.
ALTER TABLE migrations ADD COLUMN permit TEXT;

-- The highest number of a refusal of the edge's that is in the ledger, and the certificate of the
-- agent that numbered it: another agent counts from the beginning.
ALTER TABLE edges ADD COLUMN refusals_entered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE edges ADD COLUMN refusals_of TEXT;
