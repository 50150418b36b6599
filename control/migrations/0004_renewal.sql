-- When the certificate of an edge's agent expires; not known of those that enrolled before this.
ALTER TABLE edges ADD COLUMN certificate_expires_at INTEGER;

-- The certificate (PEM) that is to come in its place, from when it was signed until the edge has
-- shown it: for which request (PEM), and when it expires. No permit is made meanwhile.
ALTER TABLE edges ADD COLUMN pending_certificate TEXT;
ALTER TABLE edges ADD COLUMN pending_request TEXT;
ALTER TABLE edges ADD COLUMN pending_expires_at INTEGER;

-- How many refusals that the edge did not keep the ledger tells of; of the agent in refusals_of.
ALTER TABLE edges ADD COLUMN refusals_dropped INTEGER NOT NULL DEFAULT 0;
