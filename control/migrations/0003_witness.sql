-- The newest cosignature of each witness, by its verifier key.
CREATE TABLE ledger_cosignatures (
    witness TEXT PRIMARY KEY,
    size    INTEGER NOT NULL,             -- of the checkpoint that it cosigned
    line    TEXT NOT NULL                 -- C2SP tlog-cosignature, with its line break
) STRICT;
