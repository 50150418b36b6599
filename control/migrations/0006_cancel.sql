-- When somebody wanted a move to be cancelled and was told that it will be.
ALTER TABLE migrations ADD COLUMN cancel_asked_at INTEGER;
-- Since when nothing that is asked is done, and whether that has been so for too long.
ALTER TABLE migrations ADD COLUMN waiting_since INTEGER;
ALTER TABLE migrations ADD COLUMN needs_operator INTEGER NOT NULL DEFAULT 0;
-- Whether an operator has declared an edge lost.
ALTER TABLE migrations ADD COLUMN source_lost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE migrations ADD COLUMN target_lost INTEGER NOT NULL DEFAULT 0;

-- States that were left because an edge was declared lost: what they ask for is to be done when the
-- edge is there again.
CREATE TABLE owed_effects (
    migration TEXT NOT NULL REFERENCES migrations (id) ON DELETE CASCADE,
    state     TEXT NOT NULL,              -- JSON, core's State
    PRIMARY KEY (migration, state)
) STRICT, WITHOUT ROWID;
