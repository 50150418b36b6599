-- What the monitor read of each edge in the last hour, a row a minute: 60 rows an edge at the most,
-- each of which is written over an hour later. Dispensable.
CREATE TABLE utilization_samples (
    edge              TEXT NOT NULL REFERENCES edges (id) ON DELETE CASCADE,
    minute            INTEGER NOT NULL,   -- of the hour, 0 to 59
    cpu_hundredths    INTEGER NOT NULL,
    memory_hundredths INTEGER NOT NULL,
    read_at           INTEGER NOT NULL,
    PRIMARY KEY (edge, minute)
) STRICT, WITHOUT ROWID;

-- When the monitor last looked at all edges, and how long that took.
CREATE TABLE monitor (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    looked_at INTEGER NOT NULL,
    took_ms   INTEGER NOT NULL
) STRICT;
